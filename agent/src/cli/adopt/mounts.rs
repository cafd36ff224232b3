//! What is mounted in a container: `Mounts` of its inspection.

use serde_json::Value;

use super::container::{elements, list, text};

/// The flag for a mount; `None` where there is none for it.
pub(super) fn flag(mount: &Value, host: &Value, name: &str, notes: &mut Vec<String>) -> Option<(&'static str, String)> {
    let (target, kind) = (text(&mount["Destination"]), text(&mount["Type"]));
    // How it was asked for, if with `--mount`.
    let asked = elements(&host["Mounts"]).find(|asked| text(&asked["Target"]) == target).unwrap_or(&Value::Null);
    let source = match kind {
        "volume" if ends_with_container(mount, host) => return Some(("volume", target.to_owned())),
        "volume" => text(&mount["Name"]),
        "bind" => text(&mount["Source"]),
        "tmpfs" => return Some(("tmpfs", tmpfs(target, &asked["TmpfsOptions"]))),
        other => {
            notes.push(format!("the mount of type `{other}` at {target} of `{name}` was left out"));
            return None;
        }
    };
    let mut lost = |what: &str| notes.push(format!("`{what}` of the mount at {target} of `{name}` was left out"));
    for (option, value) in [
        ("NonRecursive", &asked["BindOptions"]["NonRecursive"]),
        ("ReadOnlyNonRecursive", &asked["BindOptions"]["ReadOnlyNonRecursive"]),
        ("ReadOnlyForceRecursive", &asked["BindOptions"]["ReadOnlyForceRecursive"]),
    ] {
        if *value == true {
            lost(option);
        }
    }
    // With `--volume` it is a mode only, of podman an option.
    let no_copy = asked["VolumeOptions"]["NoCopy"] == true
        || (kind == "volume"
            && text(&mount["Mode"]).split(',').chain(list(&mount["Options"])).any(|mode| mode == "nocopy"));
    let read_only = mount["RW"] == false;
    // `rprivate` is what one gets without asking.
    let propagation = Some(text(&mount["Propagation"])).filter(|mode| !matches!(*mode, "" | "rprivate"));
    let subpath = text(&asked["VolumeOptions"]["Subpath"]);
    if subpath.is_empty() && !source.contains(':') && !target.contains(':') {
        let modes = [read_only.then_some("ro"), no_copy.then_some("nocopy"), propagation];
        let modes: Vec<&str> = modes.into_iter().flatten().collect();
        let modes = if modes.is_empty() { String::new() } else { format!(":{}", modes.join(",")) };
        return Some(("volume", format!("{source}:{target}{modes}")));
    }
    let mut parts = vec![format!("type={kind}"), format!("source={source}"), format!("target={target}")];
    parts.extend(read_only.then(|| "readonly".to_owned()));
    parts.extend(no_copy.then(|| "volume-nocopy".to_owned()));
    parts.extend(propagation.map(|mode| format!("bind-propagation={mode}")));
    parts.extend((!subpath.is_empty()).then(|| format!("volume-subpath={subpath}")));
    Some(("mount", parts.join(",")))
}

fn tmpfs(target: &str, options: &Value) -> String {
    let size = options["SizeBytes"].as_u64().filter(|size| *size > 0).map(|size| format!("size={size}"));
    let mode = options["Mode"].as_u64().filter(|mode| *mode > 0).map(|mode| format!("mode={mode:o}"));
    let options: Vec<String> = size.into_iter().chain(mode).collect();
    if options.is_empty() { target.to_owned() } else { format!("{target}:{}", options.join(",")) }
}

/// The volumes of a container that outlive it.
pub(super) fn volumes(inspected: &Value) -> impl Iterator<Item = &Value> {
    let lasting =
        |mount: &&Value| text(&mount["Type"]) == "volume" && !ends_with_container(mount, &inspected["HostConfig"]);
    elements(&inspected["Mounts"]).filter(lasting)
}

/// Whether a volume is removed with its container: one without a name of its own, and `--rm`.
fn ends_with_container(mount: &Value, host: &Value) -> bool {
    let name = text(&mount["Name"]);
    host["AutoRemove"] == true && name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
