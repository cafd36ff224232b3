//! Reads a file as its author meant it: a misspelt key counts as the one that was meant, and what is clearly a service
//! counts as one wherever it stands.
//!
//! One mistake is thus one error: without this a misspelt `image` would be an unknown field and a service without an
//! image. Each repair reports its error first, so that nothing which was repaired is ever used.

use super::fields::{FILE, Object, Shape};
use super::sink::{Hint, Sink, closest};
use super::tree::{Fields, Item, Tree, Val, join_index, join_key};
use crate::codes;

/// Reports keys whose meaning can be guessed and puts them right.
pub(super) fn repair(document: &mut Tree, sink: &mut Sink) {
    object(document, &FILE, "", sink);
    services(document, sink);
    walk_fields(document, &FILE, "", sink);
}

fn object(tree: &mut Tree, object: &Object, path: &str, sink: &mut Sink) {
    let Some(map) = tree.map_mut() else { return };
    let strange: Vec<String> = map
        .keys()
        .filter(|key| !(object.extensions && key.starts_with("x-")))
        .filter(|key| object.fields.iter().all(|field| field.name != *key))
        .cloned()
        .collect();
    for key in strange {
        let Some(name) = closest(&key, object.fields.iter().map(|field| field.name)) else { continue };
        let fitting = object.fields.iter().find(|field| field.name == name).zip(map.get(&key));
        let fits = fitting.is_some_and(|(field, item)| fits(&field.shape, &item.tree));
        if map.contains_key(name) || !fits {
            continue;
        }
        let Some(index) = map.get_index_of(&key) else { continue };
        let Some((_, item)) = map.shift_remove_index(index) else { continue };
        super::check::unknown(&key, &item, object, path, &join_key(path, &key), sink);
        map.shift_insert(index.min(map.len()), name.to_owned(), item);
    }
}

/// Services at the top level.
fn services(document: &mut Tree, sink: &mut Sink) {
    let Some(map) = document.map_mut() else { return };
    let looks_so = |item: &Item| {
        item.tree.map().is_some_and(|map| {
            ["image", "build"].iter().any(|key| map.contains_key(*key))
                || (!map.is_empty()
                    && map.keys().all(|key| super::fields::SERVICE.fields.iter().any(|f| f.name == key)))
        })
    };
    let known = |key: &str| key.starts_with("x-") || FILE.fields.iter().any(|field| field.name == key);
    let names: Vec<String> =
        map.iter().filter(|(key, item)| !known(key) && looks_so(item)).map(|(key, _)| key.clone()).collect();
    if names.is_empty() {
        return;
    }
    if map.contains_key("services") {
        for name in &names {
            if let Some(item) = map.get(name) {
                super::check::unknown(name, item, &FILE, "", name, sink);
            }
        }
    } else if let Some(item) = names.first().and_then(|name| map.get(name)) {
        let shown: Vec<_> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
        let dots = if names.len() > 3 { ", ..." } else { "" };
        let message = format!("the file has no `services`, but what looks like some: {}{dots}", shown.join(", "));
        sink.error_at(codes::MISSING_FIELD, item.key, "services", message)
            .help("write `services:` above them and indent them below it");
        let place = item.key;
        map.insert("services".to_owned(), Item { key: place, tree: Tree::new(place, Val::Map(Fields::default())) });
    }
    for name in names {
        let Some(item) = map.shift_remove(&name) else { continue };
        if let Some(services) = map.get_mut("services").and_then(|item| item.tree.map_mut()) {
            services.entry(name).or_insert(item);
        }
    }
}

fn walk_fields(tree: &mut Tree, shape: &Object, path: &str, sink: &mut Sink) {
    let Some(map) = tree.map_mut() else { return };
    for (key, item) in map {
        if let Some(field) = shape.fields.iter().find(|field| field.name == key) {
            walk(&mut item.tree, &field.shape, &join_key(path, key), sink);
        }
    }
}

fn walk(tree: &mut Tree, shape: &Shape, path: &str, sink: &mut Sink) {
    match (shape, &mut tree.val) {
        (Shape::Object(inner), Val::Map(_)) => {
            object(tree, inner, path, sink);
            walk_fields(tree, inner, path, sink);
        }
        (Shape::Map(inner) | Shape::Named(inner), Val::Map(map)) => {
            for (key, item) in map {
                walk(&mut item.tree, inner, &join_key(path, key), sink);
            }
        }
        (Shape::List(inner) | Shape::Unique(inner), Val::Seq(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, inner, &join_index(path, index), sink);
            }
        }
        (Shape::OneOf(shapes), _) => {
            if let Some(shape) = shapes.iter().find(|shape| fits(shape, tree)) {
                walk(tree, shape, path, sink);
            }
        }
        _ => {}
    }
}

/// Whether a value has the form of a shape: a list, a mapping or neither.
fn fits(shape: &Shape, tree: &Tree) -> bool {
    match (shape, &tree.val) {
        (Shape::OneOf(shapes), _) => shapes.iter().any(|shape| fits(shape, tree)),
        (Shape::Any, _) => true,
        (Shape::List(_) | Shape::Unique(_), val) => matches!(val, Val::Seq(_)),
        (Shape::Map(_) | Shape::Named(_) | Shape::Object(_), val) => matches!(val, Val::Map(_)),
        (_, val) => !matches!(val, Val::Map(_) | Val::Seq(_)),
    }
}
