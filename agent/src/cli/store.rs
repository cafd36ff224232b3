//! Commands that look after the image store: `tag`, `rmi`, `prune`, `df`, `verify`, `save`. What a pod on this host was
//! made from is never removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use runtime::image::gc::{PruneOptions, Removed};
use runtime::image::save::{Saved, save};
use runtime::image::store::{Store, StoreError};
use serde_json::json;
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::control::count;
use super::images::{reference, store, told};
use super::output::{CliError, Failed, Io, Outcome, Table, size};
use crate::config::Settings;
use crate::gc::roots;

/// What pods run on.
fn in_use(settings: &Settings, store: &Store) -> Result<BTreeSet<Digest>, CliError> {
    roots::of_pods(&settings.data_dir, store).map_err(|error| CliError::of(&error))
}

fn failed(error: StoreError) -> Failed {
    told(&error).into()
}

/// The digest that a name or a manifest digest stands for.
fn digest_of(store: &Store, text: &str) -> Result<Digest, Failed> {
    if let Ok(digest) = text.parse::<Digest>() {
        return Ok(digest);
    }
    let reference = reference(text)?;
    match store.image(&reference).map_err(failed)? {
        Some(image) => Ok(image.digest),
        None => Err(failed(StoreError::NotFound { reference: reference.to_string() })),
    }
}

pub(super) fn tag(settings: &Settings, image: &str, name: &str, io: &mut Io<'_>) -> Outcome {
    let store = store(settings)?;
    let (digest, name) = (digest_of(&store, image)?, reference(name)?);
    store.tag(&digest, &name).map_err(failed)?;
    if io.json {
        io.json(&json!({ "reference": name.to_string(), "digest": digest.to_string() }))?;
    } else {
        writeln!(io.err, "{name} is {digest}")?;
    }
    Ok(0)
}

pub(super) fn pin(settings: &Settings, names: &[String], pinned: bool, io: &mut Io<'_>) -> Outcome {
    let store = store(settings)?;
    let mut digests = Vec::new();
    for name in names {
        let digest = digest_of(&store, name)?;
        store.set_pinned(&digest, pinned).map_err(failed)?;
        digests.push(digest.to_string());
    }
    if io.json {
        io.json(&json!({ "images": digests, "pinned": pinned }))?;
    } else {
        let told = if pinned { "stays until it is unpinned" } else { "may go when nothing needs it" };
        for (name, digest) in names.iter().zip(&digests) {
            writeln!(io.err, "{name} ({digest}) {told}")?;
        }
    }
    Ok(0)
}

pub(super) fn remove(settings: &Settings, names: &[String], io: &mut Io<'_>) -> Outcome {
    let store = store(settings)?;
    let in_use = in_use(settings, &store)?;
    let mut all = Removed::default();
    for name in names {
        let removed = match name.parse::<Digest>() {
            Ok(digest) => store.remove_image(&digest, &in_use),
            Err(_) => store.remove_reference(&reference(name)?, &in_use),
        };
        let removed = removed.map_err(failed)?;
        all.references.extend(removed.references);
        all.images.extend(removed.images);
        all.layers.extend(removed.layers);
        all.bytes = all.bytes.saturating_add(removed.bytes);
    }
    show_removed(&all, io)
}

/// What `prune` may take.
pub(super) struct Prune {
    pub(super) older_than: Duration,
    pub(super) loaded: bool,
    pub(super) named: bool,
}

pub(super) fn prune(settings: &Settings, what: &Prune, io: &mut Io<'_>) -> Outcome {
    let store = store(settings)?;
    let keep = match what.named {
        true => in_use(settings, &store)?,
        false => roots::all(&settings.data_dir, &store).map_err(|error| CliError::of(&error))?,
    };
    let now = SystemTime::now();
    let options = PruneOptions { keep, now, older_than: what.older_than, thresholds: None, loaded: what.loaded };
    let removed = store.prune(&options).map_err(failed)?;
    show_removed(&removed, io)
}

fn show_removed(removed: &Removed, io: &mut Io<'_>) -> Outcome {
    let text = |digests: &[Digest]| digests.iter().map(ToString::to_string).collect::<Vec<_>>();
    if io.json {
        io.json(&json!({
            "references": removed.references.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "images": text(&removed.images),
            "layers": text(&removed.layers),
            "bytes": removed.bytes,
        }))?;
        return Ok(0);
    }
    for reference in &removed.references {
        writeln!(io.out, "{reference}")?;
    }
    let (images, layers) = (count(removed.images.len(), "image"), count(removed.layers.len(), "layer"));
    io.out.flush()?;
    writeln!(io.err, "removed {images} and {layers}: {} freed", size(removed.bytes))?;
    Ok(0)
}

pub(super) fn usage(settings: &Settings, io: &mut Io<'_>) -> Outcome {
    let usage = store(settings)?.disk_usage().map_err(failed)?;
    let names = |references: &[ImageRef]| references.iter().map(ToString::to_string).collect::<Vec<_>>();
    if io.json {
        let images: Vec<_> = usage
            .images
            .iter()
            .map(|image| {
                json!({
                    "digest": image.digest.to_string(),
                    "references": names(&image.references),
                    "size": image.size,
                    "shared": image.shared,
                    "own": image.own,
                })
            })
            .collect();
        io.json(&json!({ "images": images, "total": usage.total, "orphans": usage.orphans }))?;
        return Ok(0);
    }
    let mut table = Table::new(&["IMAGE", "SIZE", "SHARED", "OWN"]);
    for image in &usage.images {
        let name = names(&image.references).join(" ");
        let name = if name.is_empty() { image.digest.short() } else { name };
        table.row([name, size(image.size), size(image.shared), size(image.own)]);
    }
    if !table.is_empty() {
        table.write(io.out)?;
    }
    writeln!(io.out, "all layers: {}, without an image: {}", size(usage.total), size(usage.orphans))?;
    Ok(0)
}

/// Reads the whole store; 1 when something is damaged.
pub(super) fn verify(settings: &Settings, repair: bool, io: &mut Io<'_>) -> Outcome {
    let store = store(settings)?;
    let in_use = if repair { Some(in_use(settings, &store)?) } else { None };
    let found = store.verify(in_use.as_ref()).map_err(failed)?;
    let code = u8::from(!found.is_good());
    let damaged = found.layers.iter().filter(|layer| !layer.problems.is_empty());
    if io.json {
        let layers: Vec<_> = damaged
            .map(|layer| {
                json!({
                    "layer": layer.diff_id.to_string(),
                    "problems": layer.problems,
                    "removed": layer.removed,
                    "kept": layer.kept,
                })
            })
            .collect();
        let images: Vec<_> = found
            .images
            .iter()
            .map(|found| json!({ "image": found.image, "problem": found.problem, "repaired": found.repaired }))
            .collect();
        io.json(
            &json!({ "good": found.is_good(), "checked": found.layers.len(), "layers": layers, "images": images }),
        )?;
        return Ok(code);
    }
    for layer in damaged {
        let note = match &layer.kept {
            Some(why) => format!(" (kept: {why})"),
            None if layer.removed => " (removed: its images are pulled again)".to_owned(),
            None => String::new(),
        };
        writeln!(io.out, "layer {}{note}", layer.diff_id)?;
        for problem in &layer.problems {
            writeln!(io.out, "    {}", super::output::clean(problem))?;
        }
    }
    for found in &found.images {
        let note = if found.repaired { " (repaired: what is missing is fetched or loaded anew)" } else { "" };
        writeln!(io.out, "image {}{note}: {}", found.image, super::output::clean(&found.problem))?;
    }
    io.out.flush()?;
    let verdict = if found.is_good() { "all as it was unpacked" } else { "something is damaged" };
    writeln!(io.err, "{} checked: {verdict}", count(found.layers.len(), "layer"))?;
    Ok(code)
}

pub(super) fn save_images(settings: &Settings, names: &[String], path: &Path, io: &mut Io<'_>) -> Outcome {
    let names = names.iter().map(|name| reference(name)).collect::<Result<Vec<_>, CliError>>()?;
    let saved = save(&store(settings)?, &names, path).map_err(failed)?;
    if io.json {
        let one = |saved: &Saved| {
            json!({
                "reference": saved.reference.to_string(),
                "digest": saved.digest.to_string(),
                "original": saved.original.to_string(),
            })
        };
        io.json(&saved.iter().map(one).collect::<Vec<_>>())?;
    } else {
        writeln!(io.err, "saved {} to {}", count(saved.len(), "image"), path.display())?;
    }
    Ok(0)
}
