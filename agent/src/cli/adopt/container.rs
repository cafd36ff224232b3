//! A container of `docker inspect` or `podman inspect`: the flags of the `docker run` that makes it again, and what is
//! lost on the way. Pure: the flags go to the same converter as those of `mainstay convert`.

use serde_json::Value;
use spec::manifest::compose::convert::{ConvertError, Converted, RunLine};

use super::known::{Known, container_name, is_image_id};
use super::{docker, networks, podman, volumes};

/// A container that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name.
    pub(super) name: String,
    /// What makes it again.
    line: RunLine,
    /// What could not be carried over.
    notes: Vec<String>,
    /// Why there is no manifest for it.
    refused: Option<String>,
}

/// Parts of the names of variables that are usually kept secret.
const SECRET: [&str; 4] = ["PASSWORD", "SECRET", "TOKEN", "KEY"];

/// Labels that Compose and the image put there: they say nothing to whoever reads the manifest.
const LABELS_OF_TOOLS: [&str; 4] =
    ["com.docker.compose.", "io.podman.compose.", "org.opencontainers.image.", "PODMAN_SYSTEMD_UNIT"];

/// Whether a container is meant by this name, id or beginning of its id.
pub(super) fn is_called(inspected: &Value, name: &str) -> bool {
    let id = text(&inspected["Id"]);
    container_name(inspected) == name || (!name.is_empty() && id.starts_with(name))
}

/// One element of the list; `None` for what is no container of its own.
pub(super) fn container(inspected: &Value, known: &Known) -> Option<Found> {
    let name = container_name(inspected).to_owned();
    // The container that holds a pod's namespaces.
    if name.is_empty() || inspected["IsInfra"] == true {
        return None;
    }
    let mut notes = Vec::new();
    if !text(&inspected["Pod"]).is_empty() {
        notes.push(format!("`{name}` belongs to a pod of podman: `podman kube generate` writes it as a Pod"));
    }
    if text(&inspected["State"]["Status"]) == "exited" {
        notes.push(format!("`{name}` does not run now"));
    }
    // podman keeps what was typed: nothing is closer to what was meant.
    let mut line = match podman::line(&name, inspected, &mut notes) {
        Some(line) => line,
        None => docker::line(&name, inspected, &mut notes),
    };
    line.flags.retain(|(flag, value)| {
        *flag != "name" && !(*flag == "label" && LABELS_OF_TOOLS.iter().any(|of_tool| value.starts_with(of_tool)))
    });
    line.flags.insert(0, ("name", name.clone()));
    volumes::define(&mut line, inspected, &name, known, &mut notes);
    networks::define(&mut line, &name, known, &mut notes);
    let refused = image_by_name(&mut line, inspected, known);
    let joined = line.flags.iter_mut().filter(|(flag, _)| *flag == "network").map(|(_, value)| value);
    joined.chain(&mut notes).for_each(|said| *said = known.with_names(said));
    let secret: Vec<String> = line.flags.iter().filter_map(|(flag, value)| secret_of(flag, value)).collect();
    if !secret.is_empty() {
        let secret = secret.join(", ");
        notes.push(format!("`{name}` holds variables in plain text ({secret}): do not commit the file as it is"));
    }
    Some(Found { name, line, notes, refused })
}

/// Takes a name of the image in place of its id; says why there is none.
fn image_by_name(line: &mut RunLine, inspected: &Value, known: &Known) -> Option<String> {
    if !is_image_id(&line.image, inspected) {
        return None;
    }
    // podman knows the first name by itself.
    let of_podman = inspected["ImageName"].as_str().filter(|name| !is_image_id(name, inspected));
    match of_podman.or_else(|| known.image(inspected)) {
        Some(named) => line.image = named.to_owned(),
        None => {
            let program = if docker::is_podman(inspected) { "podman" } else { "docker" };
            return Some(format!(
                "its image is given by an id (`{}`), which says nothing on another host: give it a name with `{program} tag` and ask {program} itself, not a file",
                line.image
            ));
        }
    }
    None
}

/// The name of a variable that looks like a secret; one that only names a file is none.
fn secret_of(flag: &str, value: &str) -> Option<String> {
    let (name, value) = value.split_once('=').filter(|_| flag == "env")?;
    let upper = name.to_ascii_uppercase();
    let secret = SECRET.iter().any(|part| upper.contains(part)) && !upper.ends_with("_FILE") && !value.is_empty();
    secret.then(|| name.to_owned())
}

impl Found {
    /// The Compose file, with all notes.
    pub(super) fn convert(mut self) -> Result<Converted, String> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        // What was meant as a `$` stays one.
        let values = self.line.flags.iter_mut().map(|(_, value)| value).chain(&mut self.line.command);
        let options = self.line.volumes.values_mut().flat_map(|options| options.values_mut());
        values.chain(options).chain([&mut self.line.image]).for_each(|text| *text = text.replace('$', "$$"));
        loop {
            match self.line.convert() {
                // Nobody can change the command line of a container that runs: do without the flag.
                Err(ConvertError::Refused { flag, reason })
                    if self.line.flags.iter().any(|(name, _)| flag.strip_prefix("--") == Some(*name)) =>
                {
                    self.line.flags.retain(|(name, _)| flag.strip_prefix("--") != Some(*name));
                    self.notes.push(format!("`{flag}` of `{}` was left out: {reason}", self.name));
                }
                Err(error) => return Err(error.to_string()),
                Ok(mut converted) => {
                    self.notes.extend(converted.notes.iter().map(|note| format!("`{}`: {note}", self.name)));
                    converted.notes = self.notes;
                    return Ok(converted);
                }
            }
        }
    }
}

/// Why a security option cannot be kept.
pub(super) fn refused_option(option: &str) -> Option<&'static str> {
    let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match key {
        "seccomp" if value.starts_with('{') => Some("write the profile into a file and name that with `security_opt`"),
        "no-new-privileges" | "seccomp" | "apparmor" | "systempaths" => None,
        "label" => Some("SELinux labels are not set"),
        _ => Some("there is no such option"),
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn list(value: &Value) -> Vec<&str> {
    elements(value).filter_map(Value::as_str).collect()
}

pub(super) fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn pairs(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
