//! Commands about images: fetch, load, list, unpack. They work on the store itself, beside a running agent or without
//! one; the store's own locks keep the two apart.

use std::path::Path;

use runtime::image::load::{Source, load, unpack_to};
use runtime::image::pull::Puller;
use runtime::image::store::{ImageRecord, Origin, Store, StoreError};
use serde_json::json;
use spec::causes::causes;
use spec::image_ref::ImageRef;
use spec::pod::PullPolicy;

use super::output::{CliError, Failed, Io, Outcome, Table, ago, size};
use super::progress;
use crate::config::Settings;

/// The store of this host.
pub(super) fn store(settings: &Settings) -> Result<Store, CliError> {
    let path = settings.data_dir.join("images");
    Store::open(&path).map_err(|error| told(&error).place(path.display().to_string()))
}

pub(super) fn told(error: &StoreError) -> CliError {
    let told = CliError::of(error);
    let denied = causes(error)
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::PermissionDenied);
    if denied && !nix::unistd::geteuid().is_root() {
        return told.hint("run the command as root, such as with sudo");
    }
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

pub(super) fn reference(text: &str) -> Result<ImageRef, CliError> {
    ImageRef::parse(text).map_err(|error| CliError::of(&error).hint("write it as [registry/]name[:tag][@digest]"))
}

/// What can be chosen for a pull.
pub(super) struct Pull<'a> {
    pub(super) image: &'a str,
    pub(super) platform: Option<&'a str>,
    pub(super) missing: bool,
}

pub(super) fn pull(settings: &Settings, wanted: &Pull<'_>, io: &mut Io<'_>) -> Outcome {
    let reference = reference(wanted.image)?;
    let store = store(settings)?;
    let registries = settings.registries.clone().try_into();
    let registries = registries.map_err(|error| CliError::new("cannot use the setting `registries`").cause(error))?;
    runtime::install_crypto();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let threads = threads.map_err(|error| CliError::new("cannot start threads").cause(error))?;
    let policy = if wanted.missing { PullPolicy::IfNotPresent } else { PullPolicy::Always };
    let puller = Puller::new(store, registries);
    let pulled = threads.block_on(async {
        let (progress, shown) = progress::start();
        let result = puller.pull(&reference, policy, wanted.platform, &Vec::new(), Some(progress)).await;
        shown.finish();
        result
    });
    let image = pulled.map_err(|error| {
        let error = error.into_runtime(&reference);
        CliError { hint: error.hint.clone(), ..CliError::of(&error) }
    })?;
    if io.json {
        io.json(&json!({
            "reference": reference.to_string(),
            "digest": image.digest.to_string(),
            "size": image.size,
            "layers": image.diff_ids.len(),
        }))?;
    } else {
        writeln!(io.out, "{reference} {} {}", image.digest, size(image.size))?;
    }
    Ok(0)
}

pub(super) fn load_images(settings: &Settings, path: &Path, io: &mut Io<'_>) -> Outcome {
    let store = store(settings)?;
    let loaded = load(&store, path).map_err(|error| told(&error).place(path.display().to_string()))?;
    if loaded.is_empty() {
        return Err(CliError::new("there is no image in it").place(path.display().to_string()).into());
    }
    let name = |reference: &Option<ImageRef>| reference.as_ref().map(ToString::to_string);
    if io.json {
        let one = |(reference, image): &(Option<ImageRef>, runtime::image::store::Image)| json!({ "reference": name(reference), "digest": image.digest.to_string(), "size": image.size });
        io.json(&loaded.iter().map(one).collect::<Vec<_>>())?;
        return Ok(0);
    }
    for (reference, image) in &loaded {
        let name = name(reference).unwrap_or_else(|| "(no name)".to_owned());
        writeln!(io.out, "{name} {} {}", image.digest, size(image.size))?;
    }
    Ok(0)
}

pub(super) fn images(settings: &Settings, io: &mut Io<'_>) -> Outcome {
    let mut images = store(settings)?.images().map_err(|error| Failed::from(told(&error)))?;
    images.sort_by(|a, b| {
        (a.references.is_empty(), &a.references, a.digest).cmp(&(b.references.is_empty(), &b.references, b.digest))
    });
    if io.json {
        let one = |image: &ImageRecord| {
            json!({
                "references": image.references.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "digest": image.digest.to_string(),
                "config": image.config.to_string(),
                "layers": image.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "size": image.size,
                "origin": origin(image.origin),
                "pinned": image.pinned,
                "complete": image.complete,
                "lastUsed": unix(image),
            })
        };
        io.json(&images.iter().map(one).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let mut table = Table::new(&["IMAGE", "DIGEST", "SIZE", "ORIGIN", "USED", "NOTE"]);
    for image in &images {
        let names: Vec<String> = image.references.iter().map(ToString::to_string).collect();
        let notes = [(image.pinned, "pinned"), (!image.complete, "incomplete: layers are missing")];
        let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
        for name in if names.is_empty() { vec!["(no name)".to_owned()] } else { names } {
            table.row([
                name,
                image.digest.short(),
                size(image.size),
                origin(image.origin).to_owned(),
                ago(io.now, unix(image)),
                notes.join(", "),
            ]);
        }
    }
    if table.is_empty() {
        writeln!(io.err, "no images")?;
    } else {
        table.write(io.out)?;
    }
    Ok(0)
}

fn unix(image: &ImageRecord) -> i64 {
    let since = image.last_used.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Pulled => "pulled",
        Origin::Loaded => "loaded",
        Origin::Builtin => "built-in",
    }
}

/// Writes all layers of an image into a directory. `source` is a file or directory, or the name of a stored image.
pub(super) fn unpack(
    settings: &Settings,
    source: &str,
    image: Option<&str>,
    destination: &Path,
    io: &mut Io<'_>,
) -> Outcome {
    let failed = |error: StoreError| Failed::from(told(&error).place(source));
    let path = Path::new(source);
    let flattened = if path.exists() {
        let image = image.map(reference).transpose()?;
        let limits = runtime::image::unpack::Limits::default();
        unpack_to(Source::Path(path, image.as_ref()), destination, &limits).map_err(failed)?
    } else {
        let store = store(settings)?;
        let reference = reference(source)?;
        let Some(image) = store.image(&reference).map_err(failed)? else {
            return Err(CliError::new(format!("image `{reference}` is not in the store"))
                .hint(format!("fetch it with `mainstay pull {reference}`, or give a file or directory that exists"))
                .into());
        };
        unpack_to(Source::Stored(&store, &image), destination, store.limits()).map_err(failed)?
    };
    if io.json {
        let digest = flattened.digest.to_string();
        io.json(&json!({ "digest": digest, "layers": flattened.layers, "destination": destination }))?;
    } else {
        let layers = super::control::count(flattened.layers, "layer");
        writeln!(io.err, "unpacked {} ({layers}) into {}", flattened.digest, destination.display())?;
    }
    Ok(0)
}
