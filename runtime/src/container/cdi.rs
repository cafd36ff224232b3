//! Devices by CDI name (`vendor.com/class=name`): what files in /etc/cdi and /var/run/cdi say that a container needs for
//! them (Container Device Interface specification 0.8).
//!
//! Device nodes, mounts, variables and hooks are carried over. Fields that say something else about a container are
//! refused by name, so that no device half works. The files are the administrator's, and so are the programs of hooks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use spec::load::{Limits, load};
use spec::node::{Node, Value as Written};
use spec::pod::Device;

use super::config::{DeviceOwner, Mount, MountKind};

/// Where specifications lie; later directories win (CDI specification, "Host-side").
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// It is no name of one.
    #[error("`{0}` is not the name of a CDI device: `vendor.com/class=name` is one")]
    Name(String),
    /// No file names it.
    #[error("there is no CDI device `{name}` in {}", looked_in(.known))]
    Unknown {
        /// Which.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A file cannot be used.
    #[error("cannot use the CDI file {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

fn looked_in(known: &[String]) -> String {
    match known {
        [] => format!("{}, where there is none at all", DIRECTORIES.join(" or ")),
        _ => format!("{}, which have {}", DIRECTORIES.join(" or "), known.join(", ")),
    }
}

/// What a container needs for its devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Who owns them, where they say so.
    pub owners: BTreeMap<String, DeviceOwner>,
    /// Groups of the program.
    pub gids: Vec<u32>,
    /// Binds.
    pub mounts: Vec<Mount>,
    /// OCI hooks by name, each a list.
    pub hooks: Map<String, Value>,
}

/// What these devices need.
///
/// # Errors
/// A device is in no file, or a file of its kind cannot be used.
pub fn edits(names: &[String]) -> Result<Edits, CdiError> {
    edits_in(&DIRECTORIES.map(Path::new), names)
}

fn edits_in(directories: &[&Path], names: &[String]) -> Result<Edits, CdiError> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    let files = files(directories);
    let mut known = Vec::new();
    let mut kinds_done: Vec<PathBuf> = Vec::new();
    for name in names {
        let (kind, device) = name
            .split_once('=')
            .filter(|(kind, device)| kind.contains('/') && !device.is_empty())
            .ok_or_else(|| CdiError::Name(name.clone()))?;
        let mut found = false;
        // The file that was read last wins.
        for (path, content) in files.iter().rev() {
            let of_kind = matches!(content, Ok(spec) if spec["kind"] == kind);
            let Ok(spec) = content else { continue };
            let devices = spec["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
            known.extend(
                devices.iter().filter_map(|d| Some(format!("{}={}", spec["kind"].as_str()?, d["name"].as_str()?))),
            );
            let Some(one) = devices.iter().find(|known| of_kind && known["name"] == device) else { continue };
            let add = |edits: &mut Edits, from: &Value| {
                edits.add(from).map_err(|why| CdiError::File { path: path.clone(), why })
            };
            // What all devices of a file need comes once.
            if !kinds_done.contains(path) {
                kinds_done.push(path.clone());
                add(&mut edits, &spec["containerEdits"])?;
            }
            add(&mut edits, &one["containerEdits"])?;
            found = true;
            break;
        }
        // A damaged file may be the one that is meant: better said than guessed around.
        let damaged = files.iter().find_map(|(path, content)| Some((path, content.as_ref().err()?)));
        if let Some((path, why)) = damaged.filter(|_| !found) {
            return Err(CdiError::File { path: path.clone(), why: why.clone() });
        }
        if !found {
            known.sort();
            known.dedup();
            return Err(CdiError::Unknown { name: name.clone(), known });
        }
    }
    Ok(edits)
}

/// Every file of the directories, in order, with what it says.
fn files(directories: &[&Path]) -> Vec<(PathBuf, Result<Value, String>)> {
    let mut all = Vec::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension().is_some_and(|end| ["json", "yaml", "yml"].iter().any(|known| end == *known))
            })
            .collect();
        paths.sort();
        all.extend(paths.into_iter().map(|path| {
            let content = read(&path);
            (path, content)
        }));
    }
    all
}

fn read(path: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let loaded = load(&path.display().to_string(), &bytes, &Limits::default());
    if let Some(problem) = loaded.diagnostics.first() {
        return Err(problem.message.clone());
    }
    loaded.documents.first().map(|document| plain(&document.node)).ok_or_else(|| "it is empty".to_owned())
}

/// A value without its places.
fn plain(node: &Node) -> Value {
    match &node.value {
        Written::Null => Value::Null,
        Written::Bool(value) => json!(value),
        Written::Int(value) => json!(value),
        Written::UInt(value) => json!(value),
        Written::Float(value) => json!(value),
        Written::String(text, _) => json!(text),
        Written::Seq(items) => items.iter().map(plain).collect(),
        Written::Map(map) => map.iter().map(|(key, entry)| (key.clone(), plain(&entry.node))).collect(),
    }
}

impl Edits {
    fn add(&mut self, from: &Value) -> Result<(), String> {
        for (field, value) in from.as_object().into_iter().flatten() {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            match field.as_str() {
                "env" => {
                    let pairs = items.iter().filter_map(|item| item.as_str()?.split_once('='));
                    self.env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
                }
                "deviceNodes" => {
                    for item in items {
                        let device = device(item)?;
                        self.owners.extend(owner(item)?.map(|owner| (device.container_path.clone(), owner)));
                        self.devices.push(device);
                    }
                }
                "additionalGids" => {
                    for item in items {
                        // 0 is ignored (CDI specification, "containerEdits").
                        self.gids.extend(Some(number(item)?).filter(|gid| *gid != 0));
                    }
                }
                "mounts" => {
                    for item in items {
                        self.mounts.push(mount(item)?);
                    }
                }
                "hooks" => {
                    for item in items {
                        let (name, hook) = hook(item)?;
                        if let Value::Array(list) = self.hooks.entry(name).or_insert_with(|| json!([])) {
                            list.push(hook);
                        }
                    }
                }
                other if items.is_empty() && value.as_object().is_none_or(Map::is_empty) => {
                    tracing::debug!(field = other, "empty field of a CDI file");
                }
                other => return Err(format!("containerEdits.{other} is not supported")),
            }
        }
        Ok(())
    }
}

fn text<'a>(item: &'a Value, key: &str) -> Result<&'a str, String> {
    item[key].as_str().filter(|text| !text.is_empty()).ok_or_else(|| format!("`{key}` is missing in {item}"))
}

fn device(item: &Value) -> Result<Device, String> {
    let path = text(item, "path")?;
    Ok(Device {
        host_path: item["hostPath"].as_str().unwrap_or(path).to_owned(),
        container_path: path.to_owned(),
        permissions: item["permissions"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
    })
}

fn number(item: &Value) -> Result<u32, String> {
    item.as_u64().and_then(|number| u32::try_from(number).ok()).ok_or_else(|| format!("{item} is not an id"))
}

/// What a node says of owner and mode. Its kind and numbers are those of the node on the host, and must be.
fn owner(item: &Value) -> Result<Option<DeviceOwner>, String> {
    let id = |key: &str| Some(&item[key]).filter(|value| !value.is_null()).map(number).transpose();
    let owner = DeviceOwner { uid: id("uid")?, gid: id("gid")?, mode: id("fileMode")?.map(|mode| mode & 0o777) };
    Ok(Some(owner).filter(|owner| *owner != DeviceOwner::default()))
}

fn mount(item: &Value) -> Result<Mount, String> {
    let options: Vec<&str> = item["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let kind = item["type"].as_str().filter(|kind| !kind.is_empty());
    if kind.is_some_and(|kind| kind != "bind" && kind != "none") {
        return Err(format!("a mount of type `{}` is not supported", kind.unwrap_or_default()));
    }
    Ok(Mount {
        source: text(item, "hostPath")?.into(),
        target: text(item, "containerPath")?.into(),
        kind: MountKind::Bind,
        read_only: options.contains(&"ro"),
        recursive_read_only: false,
        propagation: None,
        shifted: false,
    })
}

fn hook(item: &Value) -> Result<(String, Value), String> {
    const NAMES: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let name = text(item, "hookName")?;
    if !NAMES.contains(&name) {
        return Err(format!("there is no hook `{name}`"));
    }
    let mut hook = json!({"path": text(item, "path")?});
    for key in ["args", "env", "timeout"] {
        if !item[key].is_null() {
            hook[key] = item[key].clone();
        }
    }
    Ok((name.to_owned(), hook))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "
cdiVersion: 0.6.0
kind: example.org/gpu
containerEdits:
  env: [ALL=1]
  mounts: [{hostPath: /usr/lib/libgpu.so, containerPath: /lib/libgpu.so, options: [ro, nosuid, bind]}]
  hooks: [{hookName: createContainer, path: /usr/bin/hook, args: [hook, x]}]
devices:
  - name: '0'
    containerEdits: {deviceNodes: [{path: /dev/gpu0, hostPath: /dev/null, permissions: rw}], env: [ONE=0]}
  - name: '1'
    containerEdits: {deviceNodes: [{path: /dev/gpu1, type: c, uid: 7, fileMode: 432}], additionalGids: [0, 44]}
  - name: odd
    containerEdits: {intelRdt: {closID: x}}
";

    #[test]
    fn a_device_brings_what_its_file_says() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("gpu.yaml"), SPEC).expect("written");
        std::fs::write(dir.path().join("other.json"), r#"{"kind": "v.com/x", "devices": [{"name": "a"}]}"#)
            .expect("written");
        let get = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            edits_in(&[Path::new("/nonexistent"), dir.path()], &names)
        };
        let both = get(&["example.org/gpu=0", "example.org/gpu=1"]).expect("there");
        let env: Vec<String> = both.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["ALL=1", "ONE=0"]);
        let nodes: Vec<(&str, &str)> =
            both.devices.iter().map(|d| (d.host_path.as_str(), d.container_path.as_str())).collect();
        assert_eq!(nodes, [("/dev/null", "/dev/gpu0"), ("/dev/gpu1", "/dev/gpu1")]);
        let owner = DeviceOwner { uid: Some(7), gid: None, mode: Some(0o660) };
        assert_eq!((both.owners, both.gids), (BTreeMap::from([("/dev/gpu1".to_owned(), owner)]), vec![44]));
        assert!(matches!(both.mounts.as_slice(), [mount] if mount.read_only));
        assert_eq!(both.hooks["createContainer"], json!([{"path": "/usr/bin/hook", "args": ["hook", "x"]}]));
        assert_eq!(get(&[]).expect("nothing"), Edits::default());
        for (name, says) in [
            ("example.org/gpu=2", "example.org/gpu=0"),
            ("example.org/gpu", "not the name"),
            ("example.org/gpu=odd", "intelRdt"),
        ] {
            let error = get(&[name]).expect_err("refused").to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        std::fs::write(dir.path().join("broken.json"), "{").expect("written");
        get(&["v.com/x=a"]).expect("another file is no matter");
        assert!(matches!(get(&["v.com/x=b"]), Err(CdiError::File { .. })));
    }
}
