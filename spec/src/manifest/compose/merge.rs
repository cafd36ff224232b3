//! Merging of files and of extended services (Compose specification, "Merge").
//!
//! Mappings merge, lists append, everything else is replaced; the exceptions are in [`rule`]. After a merge, lists
//! with a key keep the last entry of each key. `!reset` removes what was there, `!override` replaces it whole.

use super::ports;
use super::tree::{Fields, Item, Place, Tree, Val};
use super::volumes;

/// Two values that cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// Path of the value.
    pub(super) path: String,
    /// The later one.
    pub(super) place: Place,
    /// What the earlier one is.
    pub(super) was: &'static str,
    /// What the later one is.
    pub(super) is: &'static str,
}

/// How two values of a path become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Mappings merge, lists append, scalars are replaced.
    Usual,
    /// The later one stays.
    Replace,
    /// Both become lists of `key=value`, which append.
    Pairs,
    /// The same, but `host:address` in lists.
    Hosts,
    /// A string or a list; lists append.
    Strings,
    /// Lists become mappings with this value for each name.
    Names(Named),
    /// Options of the same driver merge, else the later one stays.
    Logging,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Null,
    Started,
}

fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"] => Rule::Replace,
        ["services", _, "gpus" | "storage_opt" | "provider"] | ["include"] => Rule::Replace,
        ["services", _, "environment" | "labels" | "annotations" | "sysctls"]
        | ["services", _, "deploy", "labels"]
        | ["services", _, "build", "args" | "labels" | "additional_contexts" | "ssh"]
        | ["networks" | "volumes" | "secrets" | "configs", _, "labels"] => Rule::Pairs,
        ["services", _, "extra_hosts"] | ["services", _, "build", "extra_hosts"] => Rule::Hosts,
        ["services", _, "dns" | "dns_search" | "tmpfs" | "env_file" | "label_file"] => Rule::Strings,
        ["services", _, "depends_on"] => Rule::Names(Named::Started),
        ["services", _, "networks" | "models"] => Rule::Names(Named::Null),
        ["services", _, "logging"] => Rule::Logging,
        _ => Rule::Usual,
    }
}

/// Merges `over` into `base`, both at `path`.
pub(super) fn merge(base: Tree, over: Tree, path: &mut Vec<&str>, faults: &mut Vec<Mismatch>) -> Tree {
    // The marker stays until the end, so that the key goes away there.
    if let Some("!reset" | "!override") = over.tag.as_deref() {
        return over;
    }
    if base.tag.as_deref() == Some("!reset") || base.is_null() {
        return over;
    }
    let rule = rule(path);
    if over.is_null() && rule != Rule::Replace {
        return base;
    }
    match rule {
        Rule::Replace => over,
        Rule::Usual => usual(base, over, path, faults),
        Rule::Pairs => append(pairs(base, '='), pairs(over, '='), path, faults),
        Rule::Hosts => append(pairs(base, ':'), pairs(over, ':'), path, faults),
        Rule::Strings => append(strings(base), strings(over), path, faults),
        Rule::Names(value) => usual(names(base, value), names(over, value), path, faults),
        Rule::Logging => {
            let (was, is) = (base.get("driver").and_then(Tree::str), over.get("driver").and_then(Tree::str));
            if was == is || was.is_none() || is.is_none() { usual(base, over, path, faults) } else { over }
        }
    }
}

fn usual(mut base: Tree, mut over: Tree, path: &mut Vec<&str>, faults: &mut Vec<Mismatch>) -> Tree {
    match (&mut base.val, &mut over.val) {
        (Val::Map(_), Val::Map(_)) => {
            let (tag, place) = (base.tag.take(), base.place);
            let (Val::Map(was), Val::Map(is)) = (base.val, over.val) else { unreachable!("matched above") };
            Tree { tag, ..Tree::new(place, Val::Map(maps(was, is, path, faults))) }
        }
        (Val::Seq(was), Val::Seq(is)) => {
            was.append(is);
            base
        }
        (Val::Map(_) | Val::Seq(_), _) | (_, Val::Map(_) | Val::Seq(_)) => {
            // `build: .` and `build: {...}`, a limit as a number and as a mapping: the later form wins.
            let scalar_or_map = !matches!(base.val, Val::Seq(_)) && !matches!(over.val, Val::Seq(_));
            if !(scalar_or_map
                && matches!(path[..], ["services", _, "build"] | ["services", _, "ulimits", _] | [_, _, "external"]))
            {
                faults.push(Mismatch { path: path.join("."), place: over.place, was: base.kind(), is: over.kind() });
            }
            over
        }
        _ => over,
    }
}

fn maps(mut was: Fields, is: Fields, path: &[&str], faults: &mut Vec<Mismatch>) -> Fields {
    for (key, item) in is {
        match was.get_mut(&key) {
            Some(slot) if !key.starts_with("x-") => {
                let base = std::mem::replace(&mut slot.tree, Tree::new(item.key, Val::Null));
                // The path is borrowed from the key for the time of the inner merge only.
                let mut inner: Vec<&str> = path.to_vec();
                inner.push(&key);
                slot.tree = merge(base, item.tree, &mut inner, faults);
                slot.key = item.key;
            }
            _ => {
                was.insert(key, item);
            }
        }
    }
    was
}

fn append(mut base: Tree, mut over: Tree, path: &[&str], faults: &mut Vec<Mismatch>) -> Tree {
    match (&mut base.val, &mut over.val) {
        (Val::Seq(was), Val::Seq(is)) => {
            was.append(is);
            base
        }
        _ => {
            faults.push(Mismatch { path: path.join("."), place: over.place, was: base.kind(), is: over.kind() });
            over
        }
    }
}

/// A mapping as a list of `key=value`.
fn pairs(mut tree: Tree, separator: char) -> Tree {
    if let Val::Map(map) = tree.val {
        let mut items = Vec::with_capacity(map.len());
        for (key, item) in map {
            match item.tree.val {
                Val::Seq(values) => items.extend(values.into_iter().map(|value| pair(&key, separator, value))),
                _ => items.push(pair(&key, separator, item.tree)),
            }
        }
        tree.val = Val::Seq(items);
    }
    tree
}

fn pair(key: &str, separator: char, value: Tree) -> Tree {
    let text = match value.text() {
        Some(text) => format!("{key}{separator}{text}"),
        None => key.to_owned(),
    };
    Tree { val: Val::Str(text), ..value }
}

/// A single string as a list of one.
fn strings(tree: Tree) -> Tree {
    match tree.val {
        Val::Str(_) => {
            Tree { tag: tree.tag.clone(), ..Tree::new(tree.place, Val::Seq(vec![Tree { tag: None, ..tree }])) }
        }
        _ => tree,
    }
}

/// A list of names as a mapping.
fn names(mut tree: Tree, value: Named) -> Tree {
    if let Val::Seq(items) = tree.val {
        let mut map = Fields::new();
        for item in items {
            let place = item.place;
            let inner = match value {
                Named::Null => Val::Null,
                Named::Started => {
                    let condition = Tree::new(place, Val::Str("service_started".to_owned()));
                    Val::Map(Fields::from_iter([("condition".to_owned(), Item { key: place, tree: condition })]))
                }
            };
            if let Val::Str(name) = item.val {
                map.insert(name, Item { key: place, tree: Tree::new(place, inner) });
            }
        }
        tree.val = Val::Map(map);
    }
    tree
}

/// Removes what `!reset` marks and the markers of `!override`.
pub(super) fn clean(tree: &mut Tree) {
    tree.tag = tree.tag.take().filter(|tag| tag != "!override");
    match &mut tree.val {
        Val::Map(map) => {
            map.retain(|_, item| item.tree.tag.as_deref() != Some("!reset"));
            map.values_mut().for_each(|item| clean(&mut item.tree));
        }
        Val::Seq(items) => {
            items.retain(|item| item.tag.as_deref() != Some("!reset"));
            items.iter_mut().for_each(clean);
        }
        _ => {}
    }
}

/// Keeps of each list with a key the last entry of every key, at the place of the first.
pub(super) fn deduplicate(model: &mut Tree) {
    let Some(services) = model.map_mut().and_then(|map| map.get_mut("services")).and_then(|s| s.tree.map_mut()) else {
        return;
    };
    for service in services.values_mut() {
        let Some(fields) = service.tree.map_mut() else { continue };
        for (name, item) in fields {
            let key: fn(&Tree) -> Option<String> = match name.as_str() {
                "environment" | "labels" | "annotations" | "sysctls" => |item| before(item, '='),
                "cap_add" | "cap_drop" | "dns" | "dns_opt" | "dns_search" | "links" | "profiles" | "tmpfs" => {
                    Tree::text
                }
                "expose" | "label_file" => Tree::text,
                "env_file" => |item| item.text().or_else(|| item.get("path").and_then(Tree::text)),
                "ports" => ports::merge_key,
                "volumes" => volumes::merge_key,
                "devices" => |item| match item.str() {
                    Some(text) => Some(text.split(':').nth(1).unwrap_or(text).to_owned()),
                    None => item.get("target").or_else(|| item.get("source")).and_then(Tree::text),
                },
                "configs" | "secrets" => file_target,
                _ => continue,
            };
            if let Val::Seq(items) = &mut item.tree.val {
                unique(items, key);
            }
        }
    }
}

fn before(item: &Tree, separator: char) -> Option<String> {
    let text = item.str()?;
    Some(text.split(separator).next().unwrap_or(text).to_owned())
}

fn file_target(item: &Tree) -> Option<String> {
    let target = item.text().or_else(|| item.get("target").or_else(|| item.get("source")).and_then(Tree::text))?;
    let name = target.rsplit('/').next().unwrap_or_default().to_owned();
    Some(if target.starts_with("/run/secrets/") || !target.contains('/') { name } else { target })
}

fn unique(items: &mut Vec<Tree>, key: fn(&Tree) -> Option<String>) {
    let mut seen = std::collections::HashMap::new();
    let mut kept: Vec<Tree> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let Some(key) = key(&item) else {
            kept.push(item);
            continue;
        };
        match seen.get(&key) {
            Some(at) => {
                if let Some(slot) = kept.get_mut(*at) {
                    *slot = item;
                }
            }
            None => {
                seen.insert(key, kept.len());
                kept.push(item);
            }
        }
    }
    *items = kept;
}
