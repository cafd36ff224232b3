//! The Prometheus text format, as much of it as assertions need.

use std::collections::BTreeMap;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the series.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// Everything one scrape gave.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Samples in the order served.
    pub samples: Vec<Sample>,
    /// Names with a `# TYPE` line, and the type.
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads an exposition.
    ///
    /// # Panics
    /// At a line that is not of the format: that is a finding.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                if let Some((name, kind)) = rest.split_once(' ') {
                    metrics.types.insert(name.to_owned(), kind.to_owned());
                }
            } else if !line.starts_with('#') {
                metrics.samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line}")));
            }
        }
        metrics
    }

    /// The sum of all samples of a name that have these labels; `None` when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        };
        let found: Vec<f64> = self.samples.iter().filter(fits).map(|sample| sample.value).collect();
        if found.is_empty() { None } else { Some(found.iter().sum()) }
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.find('}') {
        Some(end) => line.split_at_checked(end + 1)?,
        None => line.split_once(' ')?,
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    let (name, inner) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    let mut labels = BTreeMap::new();
    let mut rest = inner;
    while let Some((key, after)) = rest.split_once("=\"") {
        let end = closing_quote(after)?;
        let value = after.get(..end)?.replace("\\\"", "\"").replace("\\n", "\n").replace("\\\\", "\\");
        labels.insert(key.trim_start_matches(',').trim().to_owned(), value);
        rest = after.get(end + 1..)?;
    }
    Some(Sample { name: name.trim().to_owned(), labels, value })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let found = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let metrics = Metrics::parse(
            "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"say \\\"hi\\\"\"} 2\na{x=\"2\"} 3.5 1700\nb 1e3\n",
        );
        assert_eq!(metrics.sum("a", &[]), Some(5.5));
        assert_eq!(metrics.sum("a", &[("y", "say \"hi\"")]), Some(2.0));
        assert_eq!(metrics.sum("b", &[]), Some(1000.0));
        assert_eq!(metrics.sum("a", &[("x", "3")]), None);
        assert_eq!(metrics.types.get("a").map(String::as_str), Some("counter"));
    }
}
