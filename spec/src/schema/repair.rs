//! Reads an object as its author meant it: a misspelt key counts as the one that was meant, a misplaced one as if it stood
//! where it belongs.
//!
//! One mistake is thus one error. Without this a misspelt `image` would be an unknown field and a missing one, and a
//! misplaced `volumes` would leave mounts without a volume. Each repair reports its error first, so that nothing which
//! was repaired is ever used.

use super::check::suggest;
use super::report::Report;
use super::{Kind, Type};
use crate::codes;
use crate::node::{Entry, Node, Span, Value};

/// An object with more unknown keys than this is no object with slips.
const MOST: usize = 20;

/// What people write who know another tool, or an older form.
const OTHER_WORDS: [(&str, &str, &str); 12] = [
    ("ContainerPort", "port", "containerPort"),
    ("SecretVolumeSource", "name", "secretName"),
    ("PersistentVolumeClaimVolumeSource", "name", "claimName"),
    ("Container", "environment", "env"),
    ("Container", "environments", "env"),
    ("Container", "entrypoint", "command"),
    ("Container", "cmd", "command"),
    ("Container", "mounts", "volumeMounts"),
    ("Container", "pullPolicy", "imagePullPolicy"),
    ("PodSpec", "restart", "restartPolicy"),
    ("PodSpec", "imagePullSecret", "imagePullSecrets"),
    ("DeploymentSpec", "updateStrategy", "strategy"),
];

/// Keys that stand in many places: where one belongs cannot be told from its name when it is elsewhere.
const COMMON: [&str; 10] =
    ["name", "namespace", "labels", "type", "value", "key", "path", "kind", "status", "optional"];

/// A step to a value.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

enum To {
    /// Another name at the same place.
    Name(&'static str),
    /// The mapping at these steps.
    Place(Vec<Step>),
    /// It goes, and what is missing for it is not told.
    Nowhere,
}

struct Fix {
    at: Vec<Step>,
    key: String,
    to: To,
}

struct Walk<'r, 'a> {
    report: &'r mut Report<'a>,
    root_type: &'static Type,
    root: &'r Node,
    fixes: Vec<Fix>,
    hushed: Vec<(Span, &'static str)>,
}

/// Reports every unknown key whose meaning can be guessed, and gives the object as it was meant; `None` when there is
/// none. What is missing only for such a key is noted in the report, which then does not tell it.
pub(crate) fn repair(report: &mut Report<'_>, ty: &'static Type, node: &Node) -> Option<Node> {
    let mut walk = Walk { report, root_type: ty, root: node, fixes: Vec::new(), hushed: Vec::new() };
    walk.object(ty, node, &mut Vec::new(), &mut Vec::new());
    let Walk { fixes, hushed, .. } = walk;
    report.hushed.extend(hushed);
    if fixes.is_empty() {
        return None;
    }
    let mut fixed = node.clone();
    // Inner ones first: the steps of the others still lead to them.
    for fix in fixes.into_iter().rev() {
        apply(&mut fixed, fix);
    }
    Some(fixed)
}

fn apply(root: &mut Node, fix: Fix) {
    let Some(Value::Map(map)) = at(root, &fix.at).map(|node| &mut node.value) else { return };
    match fix.to {
        To::Name(name) => {
            let Some(index) = map.get_index_of(&fix.key) else { return };
            if let Some((_, entry)) = map.shift_remove_index(index) {
                map.shift_insert(index.min(map.len()), name.to_owned(), entry);
            }
        }
        To::Place(steps) => {
            let Some(entry) = map.shift_remove(&fix.key) else { return };
            if let Some(Value::Map(map)) = at(root, &steps).map(|node| &mut node.value) {
                map.entry(fix.key).or_insert(entry);
            }
        }
        To::Nowhere => {
            map.shift_remove(&fix.key);
        }
    }
}

fn at<'n>(root: &'n mut Node, steps: &[Step]) -> Option<&'n mut Node> {
    steps.iter().try_fold(root, |node, step| match (step, &mut node.value) {
        (Step::Key(key), Value::Map(map)) => map.get_mut(key).map(|entry| &mut entry.node),
        (Step::Index(index), Value::Seq(items)) => items.get_mut(*index),
        _ => None,
    })
}

impl Walk<'_, '_> {
    /// `steps` lead to the node, `names` are the fields among them.
    fn object(&mut self, ty: &'static Type, node: &Node, steps: &mut Vec<Step>, names: &mut Vec<&'static str>) {
        let Some(map) = node.as_map() else { return };
        for (key, entry) in map {
            let Some(field) = ty.field(key) else {
                self.unknown(ty, node, key, entry, steps, names);
                continue;
            };
            steps.push(Step::Key(key.clone()));
            names.push(field.name);
            match (&field.kind, &entry.node.value) {
                (Kind::Obj(inner), _) => self.object(inner, &entry.node, steps, names),
                (Kind::Objs(inner), Value::Seq(items)) => {
                    for (index, item) in items.iter().enumerate() {
                        steps.push(Step::Index(index));
                        self.object(inner, item, steps, names);
                        steps.pop();
                    }
                }
                _ => {}
            }
            steps.pop();
            names.pop();
        }
    }

    fn unknown(
        &mut self,
        ty: &'static Type,
        node: &Node,
        key: &str,
        entry: &Entry,
        steps: &[Step],
        names: &[&'static str],
    ) {
        if self.fixes.len() >= MOST {
            return;
        }
        let (hint, to) = if let Some(name) = meant(ty, key, &entry.node) {
            // A key that is there already was not meant by this one; what is wrong with both is told as ever.
            if node.get(name).is_some() || self.takes(steps, name) {
                return;
            }
            let fits = ty.field(name).is_some_and(|field| fits(&field.kind, &entry.node));
            if !fits {
                self.hushed.push((node.span, name));
            }
            (format!("did you mean `{name}`?"), if fits { To::Name(name) } else { To::Nowhere })
        } else if let Some(hint) = self.amount(ty, node, key) {
            (hint, To::Nowhere)
        } else if let Some(place) = self.belongs(key, names) {
            let shared = names.iter().zip(&place).take_while(|(a, b)| a == b).count();
            let (to, shown) = self.place(&place, shared, steps);
            let below: String = if shared == names.len() {
                // The lists among the rest are known from the table only.
                dotted(self.root_type, &place, shared)
            } else {
                shown
            };
            let target = if below.is_empty() { key.to_owned() } else { format!("{below}.{key}") };
            (format!("`{key}` belongs in `{target}`"), to)
        } else {
            return;
        };
        self.report.error_at(codes::UNKNOWN_FIELD, node, key, format!("unknown field `{key}`")).hint = Some(hint);
        self.fixes.push(Fix { at: steps.to_vec(), key: key.to_owned(), to });
    }

    /// Whether another key of the same mapping is read as that one already.
    fn takes(&self, steps: &[Step], name: &str) -> bool {
        self.fixes.iter().any(|fix| fix.at == steps && matches!(fix.to, To::Name(taken) if taken == name))
    }

    /// Amounts that stand beside `requests` and `limits` and not in them.
    fn amount(&mut self, ty: &'static Type, node: &Node, key: &str) -> Option<String> {
        let known = ["cpu", "memory", "storage", "ephemeral-storage"].contains(&key);
        if !known || ty.field("requests").is_none() || ty.field("limits").is_none() {
            return None;
        }
        self.hushed.push((node.span, "requests"));
        Some(if key == "storage" {
            "`storage` belongs in `requests.storage`".to_owned()
        } else {
            format!("`{key}` belongs in `limits.{key}` or `requests.{key}`")
        })
    }

    /// The fields that lead to the nearest type which has this key, seen from where it is written.
    fn belongs(&self, key: &str, names: &[&'static str]) -> Option<Vec<&'static str>> {
        let mut best: Option<(usize, Vec<&'static str>)> = None;
        let mut queue = std::collections::VecDeque::from([(self.root_type, Vec::new())]);
        while let Some((ty, path)) = queue.pop_front() {
            let shared = names.iter().zip(&path).take_while(|(a, b)| a == b).count();
            let (up, down) = (names.len() - shared, path.len() - shared);
            let bound = match (up, down) {
                _ if COMMON.contains(&key) => 1,
                (0, _) => 4,
                (_, 0) => 3,
                // Aside: only a word that is seldom elsewhere tells where.
                _ if key.len() >= 8 => 3,
                _ => 2,
            };
            if ty.field(key).is_some()
                && up + down <= bound
                && best.as_ref().is_none_or(|(least, _)| up + down < *least)
            {
                best = Some((up + down, path.clone()));
            }
            if path.len() < 9 && down < 4 {
                for field in ty.fields {
                    if let Kind::Obj(inner) | Kind::Objs(inner) = field.kind {
                        let mut path = path.clone();
                        path.push(field.name);
                        queue.push_back((inner, path));
                    }
                }
            }
        }
        best.map(|(_, path)| path)
    }

    /// Where these fields lead: the steps that have `shared` fields in common with where the key is written, and on
    /// from there as long as there is exactly one way.
    fn place(&mut self, place: &[&'static str], shared: usize, steps: &[Step]) -> (To, String) {
        let mut target = Vec::new();
        let mut fields = 0;
        for step in steps {
            if matches!(step, Step::Key(_)) {
                fields += 1;
            }
            if fields > shared {
                break;
            }
            target.push(step.clone());
        }
        let mut whole = true;
        let mut node = Some(self.root);
        for step in &target {
            node = node.and_then(|node| match step {
                Step::Key(key) => node.get(key),
                Step::Index(index) => node.as_seq().and_then(|items| items.get(*index)),
            });
        }
        let mut shown = show(&target);
        for name in place.iter().skip(shared) {
            shown = if shown.is_empty() { (*name).to_owned() } else { format!("{shown}.{name}") };
            let Some(here) = node else {
                whole = false;
                continue;
            };
            match here.get(name) {
                Some(next) => {
                    target.push(Step::Key((*name).to_owned()));
                    node = Some(next);
                    if let Some(items) = next.as_seq() {
                        match items {
                            [one] => {
                                target.push(Step::Index(0));
                                node = Some(one);
                                shown.push_str("[0]");
                            }
                            _ => {
                                shown.push_str("[]");
                                node = None;
                            }
                        }
                    }
                }
                None => {
                    self.hushed.push((here.span, name));
                    node = None;
                    whole = false;
                }
            }
        }
        let to = if whole && node.is_some() { To::Place(target) } else { To::Nowhere };
        (to, shown)
    }
}

/// The field that was probably meant.
fn meant(ty: &'static Type, key: &str, node: &Node) -> Option<&'static str> {
    if let Some((.., name)) = OTHER_WORDS.iter().find(|(of, word, _)| *of == ty.name && *word == key) {
        return Some(name);
    }
    if ty.name == "Container" && key == "volumes" {
        let mounts = node.as_seq().is_some_and(|items| items.iter().any(|item| item.get("mountPath").is_some()));
        return mounts.then_some("volumeMounts");
    }
    suggest(key, ty.fields.iter().map(|field| field.name)).or_else(|| {
        let words = OTHER_WORDS.iter().filter(|(of, ..)| *of == ty.name);
        let word = suggest(key, words.clone().map(|(_, word, _)| *word))?;
        words.into_iter().find(|(_, known, _)| *known == word).map(|(.., name)| *name)
    })
}

/// Whether a value has the form that a field takes: a list, a mapping or neither.
fn fits(kind: &Kind, node: &Node) -> bool {
    match (kind, &node.value) {
        (_, Value::Null) | (Kind::Any, _) => true,
        (Kind::Obj(_) | Kind::Map(_) | Kind::Labels | Kind::Annotations, value) => matches!(value, Value::Map(_)),
        (Kind::Objs(_) | Kind::List(_), value) => matches!(value, Value::Seq(_)),
        (_, value) => !matches!(value, Value::Map(_) | Value::Seq(_)),
    }
}

/// The fields after the first `skip` of a path, with lists marked.
fn dotted(root: &'static Type, path: &[&'static str], skip: usize) -> String {
    let mut ty = root;
    let mut shown = Vec::new();
    for name in path {
        let (inner, list) = match ty.field(name).map(|field| &field.kind) {
            Some(Kind::Obj(inner)) => (inner, ""),
            Some(Kind::Objs(inner)) => (inner, "[]"),
            _ => break,
        };
        shown.push(format!("{name}{list}"));
        ty = inner;
    }
    shown.split_off(skip.min(shown.len())).join(".")
}

fn show(steps: &[Step]) -> String {
    let mut shown = String::new();
    for step in steps {
        match step {
            Step::Index(index) => shown.push_str(&format!("[{index}]")),
            Step::Key(key) if shown.is_empty() => shown.push_str(key),
            Step::Key(key) => shown.push_str(&format!(".{key}")),
        }
    }
    shown
}
