//! TOML to [`Node`] trees. A file is one object; `[[objects]]` at the top makes it several.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::load::{Document, Limits, Loaded, Places};
use crate::node::{Entry, Map, Node, Style, Value};

/// Reads the document in `text[skip..]`.
pub(crate) fn load(file: &str, text: &str, skip: usize, limits: &Limits) -> Loaded {
    let places = Places::new(text);
    let (table, errors) = DeTable::parse_recoverable(&text[skip..]);
    let mut reader = Reader { file, places: &places, skip, limits, nodes: 0, diagnostics: Vec::new() };
    for error in errors.iter().take(20) {
        let span = error.span().map(|range| reader.places.span(range.start + skip, range.end + skip));
        let duplicate = error.message().contains("duplicate key");
        let code = if duplicate { codes::DUPLICATE_KEY } else { codes::SYNTAX };
        let message = format!("invalid TOML: {}", error.message().lines().next().unwrap_or_default());
        let mut found = Diagnostic::error(code, file, span, message);
        let word = span.and_then(|span| text.get(span.start..span.end)).unwrap_or_default();
        if !duplicate
            && word.starts_with(|c: char| c.is_alphabetic())
            && text[..span.map_or(0, |s| s.start)].trim_end().ends_with('=')
        {
            found =
                found.hint(format!("text stands in quotes: \"{}\"", word.lines().next().unwrap_or_default().trim()));
        }
        reader.diagnostics.push(found);
    }
    let root = Node::new(places.span(skip, text.len()), Value::Map(reader.table(table.get_ref(), 1)));
    let mut diagnostics = reader.diagnostics;
    let complete = diagnostics.is_empty();
    // `[[items]]` is what the objects of a List are called in YAML and JSON.
    let list = root.get("objects").or_else(|| root.get("items"));
    let roots = match list.map(|node| &node.value) {
        Some(Value::Seq(objects)) if root.get("kind").is_none() => objects.clone(),
        _ if root.as_map().is_none_or(Map::is_empty) && complete => Vec::new(),
        _ => vec![root],
    };
    let documents: Vec<_> = roots
        .into_iter()
        .map(|node| {
            let secret = node.get("kind").and_then(Node::as_str) == Some("Secret");
            Document { node, complete, broken_off: !complete, secret }
        })
        .collect();
    if documents.iter().any(|document| document.secret) {
        diagnostics.iter_mut().for_each(|d| d.secret = true);
    }
    Loaded { documents, diagnostics }
}

struct Reader<'a> {
    file: &'a str,
    places: &'a Places<'a>,
    skip: usize,
    limits: &'a Limits,
    nodes: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Map {
        let mut map = Map::new();
        for (key, value) in table {
            let range = key.span();
            let key_span = self.places.span(range.start + self.skip, range.end + self.skip);
            let Some(node) = self.node(value, depth) else { break };
            map.insert(key.get_ref().to_string(), Entry { key_span, node });
        }
        // The table is sorted by key; people see their own order.
        map.sort_by(|_, a, _, b| a.key_span.start.cmp(&b.key_span.start));
        map
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Option<Node> {
        let range = value.span();
        let span = self.places.span(range.start + self.skip, range.end + self.skip);
        self.nodes += 1;
        let too_many = self.nodes > self.limits.nodes;
        if too_many || depth > self.limits.depth {
            if !self.diagnostics.iter().any(|d| d.code == codes::TOO_LARGE) {
                let what = if too_many {
                    format!("more than {} values", self.limits.nodes)
                } else {
                    format!("nested deeper than {} levels", self.limits.depth)
                };
                self.diagnostics.push(Diagnostic::error(codes::TOO_LARGE, self.file, Some(span), what));
            }
            return None;
        }
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string(), Style::Quoted),
            DeValue::Integer(integer) => {
                let digits = integer.as_str().replace('_', "");
                let radix = integer.radix();
                match (i64::from_str_radix(&digits, radix), u64::from_str_radix(&digits, radix)) {
                    (Ok(int), _) => Value::Int(int),
                    (_, Ok(int)) => Value::UInt(int),
                    _ => Value::Float(digits.parse().unwrap_or(f64::NAN)),
                }
            }
            DeValue::Float(float) => Value::Float(float.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(bool) => Value::Bool(*bool),
            DeValue::Datetime(datetime) => Value::String(datetime.to_string(), Style::Quoted),
            DeValue::Array(items) => Value::Seq(items.iter().map_while(|item| self.node(item, depth + 1)).collect()),
            DeValue::Table(table) => Value::Map(self.table(table, depth + 1)),
        };
        Some(Node::new(span, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_mappings_in_order() {
        let text = "kind = \"Pod\"\napiVersion = 'v1'\n[spec]\nb = 0x10\na = [1.5, true, 1979-05-27]\n";
        let loaded = load("t.toml", text, 0, &Limits::default());
        assert_eq!(loaded.diagnostics, []);
        let node = &loaded.documents[0].node;
        let keys: Vec<_> = node.as_map().expect("a mapping").keys().map(String::as_str).collect();
        assert_eq!(keys, ["kind", "apiVersion", "spec"]);
        let spec = node.get("spec").expect("spec");
        assert_eq!(spec.get("b").map(|n| (&n.value, n.span.line, n.span.column)), Some((&Value::Int(16), 4, 5)));
    }

    #[test]
    fn objects_make_several_documents() {
        let text = "[[objects]]\nkind = \"A\"\n[[objects]]\nkind = \"B\"\n";
        assert_eq!(load("t.toml", text, 0, &Limits::default()).documents.len(), 2);
    }

    #[test]
    fn faults_have_a_place() {
        for (text, code, line) in [
            ("a = 1\na = 2\n", codes::DUPLICATE_KEY, 2),
            ("a = \n", codes::SYNTAX, 1),
            ("a = \"x\nb = 1\n", codes::SYNTAX, 1),
        ] {
            let loaded = load("t.toml", text, 0, &Limits::default());
            let first = loaded.diagnostics.first().expect(text);
            assert_eq!((first.code, first.span.map(|s| s.line)), (code, Some(line)), "{text:?}");
        }
    }
}
