//! `--volume` and `--mount`, and what is mounted without either.

use serde_json::Value;

use super::Typed;
use crate::cli::adopt::container::{elements, text};
use crate::cli::adopt::mounts;

/// Modes of `--volume` that Compose files have as well.
const KNOWN_MODES: [&str; 11] =
    ["ro", "rw", "z", "Z", "nocopy", "private", "rprivate", "shared", "rshared", "slave", "rslave"];

impl Typed<'_> {
    /// The mount at this place, as podman made it.
    fn made(&self, target: &str) -> Option<&Value> {
        let same = |mount: &&Value| place(text(&mount["Destination"])) == place(target);
        elements(&self.inspected["Mounts"]).find(same)
    }

    /// The path on the host of what was named relative to a directory.
    fn absolute(&mut self, source: &str, target: &str) -> Option<String> {
        let made =
            self.made(target).map(|mount| text(&mount["Source"]).to_owned()).filter(|path| path.starts_with('/'));
        if made.is_none() {
            self.lost(&format!("{source}:{target}"), "podman was run in a directory that is not known");
        }
        made
    }

    pub(super) fn volume(&mut self, value: &str) {
        let mut parts = value.splitn(3, ':');
        let (first, second, modes) = (parts.next().unwrap_or_default(), parts.next(), parts.next().unwrap_or_default());
        let Some(target) = second else {
            // Without a name: what podman called it comes with the rest.
            return;
        };
        let source = match first.starts_with('.').then(|| self.absolute(first, target)) {
            Some(Some(path)) => path,
            Some(None) => return,
            None => first.to_owned(),
        };
        let (kept, other): (Vec<&str>, Vec<&str>) =
            modes.split(',').filter(|mode| !mode.is_empty()).partition(|mode| KNOWN_MODES.contains(mode));
        for mode in other.into_iter().filter(|mode| *mode != "copy") {
            self.lost(&format!(":{mode}"), &format!("there is no such option of a volume (at {target})"));
        }
        let kept = if kept.is_empty() { String::new() } else { format!(":{}", kept.join(",")) };
        self.push("volume", format!("{source}:{target}{kept}"));
    }

    pub(super) fn mount(&mut self, value: &str) {
        let option = |names: &[&str]| {
            let pairs = value.split(',').filter_map(|part| part.split_once('='));
            pairs.filter(|(key, _)| names.contains(key)).map(|(_, value)| value).next_back()
        };
        let kind = option(&["type"]).unwrap_or("volume");
        let target = option(&["target", "destination", "dst"]).unwrap_or_default();
        if !matches!(kind, "bind" | "volume" | "tmpfs" | "image") {
            // Files that a pattern matches come with the rest of the mounts.
            if kind != "glob" {
                self.lost(&format!("--mount {value}"), "there is no mount of this type");
            }
            return;
        }
        let mut parts = Vec::new();
        for part in value.split(',') {
            let (key, text) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "source" | "src" if kind == "bind" && !text.starts_with('/') => match self.absolute(text, target) {
                    Some(path) => parts.push(format!("source={path}")),
                    None => return,
                },
                "subpath" => parts.push(format!("{kind}-subpath={text}")),
                "type" | "source" | "src" | "target" | "destination" | "dst" | "readonly" | "ro"
                | "bind-propagation" | "volume-nocopy" | "volume-subpath" | "tmpfs-size" | "tmpfs-mode"
                | "consistency" => parts.push(part.to_owned()),
                // What one gets without asking, and labels of SELinux.
                "rw" | "readwrite" | "relabel" | "z" | "Z" | "tmpcopyup" | "notmpcopyup" => {}
                _ => self.lost(part, &format!("there is no such option of a mount (at {target})")),
            }
        }
        self.push("mount", parts.join(","));
    }

    /// What an image, a pattern or another container mounts here, and volumes without a name.
    pub(super) fn rest_of_mounts(&mut self, flags: &[(&'static str, String)]) {
        let typed: Vec<String> = self.line.flags.iter().filter_map(|(flag, value)| target_of(flag, value)).collect();
        for mount in elements(&self.inspected["Mounts"]) {
            if !typed.iter().any(|target| target == place(text(&mount["Destination"]))) {
                self.line.flags.extend(mounts::flag(mount, &self.inspected["HostConfig"], self.name, self.notes));
            }
        }
        self.line.flags.retain(|(flag, _)| *flag != "volumes-from");
        // With `--read-only` these can be written unless somebody says no.
        let no = flags.iter().any(|(flag, value)| *flag == "read-only-tmpfs" && value == "false");
        let read_only = flags.iter().any(|(flag, value)| *flag == "read-only" && value != "false");
        for target in ["/run", "/tmp", "/var/tmp"].into_iter().filter(|_| read_only && !no) {
            if !typed.iter().any(|other| other == target) && self.made(target).is_none() {
                self.push("tmpfs", target);
            }
        }
    }
}

/// Where a flag mounts something.
fn target_of(flag: &str, value: &str) -> Option<String> {
    let target = match flag {
        "volume" => value.split(':').nth(1)?,
        "tmpfs" => value.split(':').next()?,
        "mount" => {
            let pairs = value.split(',').filter_map(|part| part.split_once('='));
            pairs
                .filter(|(key, _)| matches!(*key, "target" | "destination" | "dst"))
                .map(|(_, path)| path)
                .next_back()?
        }
        _ => return None,
    };
    Some(place(target).to_owned())
}

/// A path without slashes at its end.
fn place(path: &str) -> &str {
    path.trim_end_matches('/')
}
