//! Volumes of containers: options of their drivers, and where the data is that a new one lacks.

use std::collections::BTreeMap;

use serde_json::Value;
use spec::manifest::compose::convert::RunLine;

use super::container::{elements, pairs, text};
use super::known::Known;
use super::mounts;

/// Writes the options of each volume where mainstay has the same, and says of the others where their data is.
pub(super) fn define(line: &mut RunLine, inspected: &Value, name: &str, known: &Known, notes: &mut Vec<String>) {
    for mount in mounts::volumes(inspected) {
        let (volume, source) = (text(&mount["Name"]), text(&mount["Source"]));
        let (driver, options) = made_with(mount, inspected, known);
        let option = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
        let (kind, device) = (option("type"), option("device"));
        let flags: Vec<&str> = option("o").split(',').filter(|flag| !flag.is_empty()).collect();
        let binds = flags.iter().any(|flag| matches!(*flag, "bind" | "rbind")) || kind == "bind";
        let lost: Vec<&str> = match kind {
            "tmpfs" if driver == "local" => flags.into_iter().filter(|flag| !flag.starts_with("size=")).collect(),
            "" | "none" | "bind" if driver == "local" && binds && device.starts_with('/') => {
                flags.into_iter().filter(|flag| !matches!(*flag, "bind" | "rbind" | "rw")).collect()
            }
            _ => {
                let begins = format!("volume `{volume}` of `{name}` begins empty: its data is in {source}");
                if driver != "local" || !device.is_empty() {
                    let made =
                        if driver == "local" { format!("from {device}") } else { format!("by driver `{driver}`") };
                    notes.push(format!(
                        "{begins}, which is mounted ({made}) only while a container there runs: copy it then, or mount it on the host and bind its path"
                    ));
                    continue;
                }
                if !options.is_empty() {
                    notes.push(format!("options of volume `{volume}` of `{name}` were left out: it is a directory"));
                }
                notes.push(format!("{begins}, copy it before the first start"));
                continue;
            }
        };
        if !lost.is_empty() {
            let lost = lost.join(",");
            notes.push(format!("`{lost}` of volume `{volume}` of `{name}` has no effect"));
        }
        // An empty type is none to whoever reads the file.
        line.volumes.insert(volume.to_owned(), options.into_iter().filter(|(_, value)| !value.is_empty()).collect());
    }
}

/// The driver of a volume with its options: as it is, else as the container asked for it.
fn made_with(mount: &Value, inspected: &Value, known: &Known) -> (String, BTreeMap<String, String>) {
    let asked = elements(&inspected["HostConfig"]["Mounts"])
        .find(|asked| text(&asked["Target"]) == text(&mount["Destination"]))
        .map_or(&Value::Null, |asked| &asked["VolumeOptions"]["DriverConfig"]);
    let (driver, options) = match known.volume(text(&mount["Name"])) {
        Some(found) => (text(&found["Driver"]), &found["Options"]),
        None => (text(&mount["Driver"]), &asked["Options"]),
    };
    let options = pairs(options).filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    (if driver.is_empty() { "local" } else { driver }.to_owned(), options.collect())
}
