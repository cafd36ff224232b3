//! Top-level networks, volumes, configs and secrets.

use super::Lower;
use crate::codes;
use crate::manifest::compose::FileState;
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Item, Place, Tree, Val, join_key};
use crate::pod::VolumeSource;
use crate::secret::SecretBytes;
use crate::workload::{ConfigData, NetworkSpec, SecretData};

/// A network by its key in the file.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) spec: NetworkSpec,
    /// `driver: host` or `none`.
    pub(super) mode: Mode,
}

/// What joining a network means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Bridge,
    Host,
    None,
}

/// A volume by its key in the file.
#[derive(Debug, Clone)]
pub(super) struct NamedVolume {
    pub(super) source: VolumeSource,
}

/// Where the content of a config or secret is.
pub(super) enum Content {
    /// Here.
    Bytes(Vec<u8>),
    /// A directory, which is mounted as it is.
    Directory(String),
    /// Nowhere yet, or elsewhere.
    Absent,
}

/// Key of the only entry of a config or secret.
pub(super) const CONTENT_KEY: &str = "content";

impl Lower<'_, '_> {
    pub(super) fn top_level(&mut self) {
        let model = self.model;
        let section = |name: &str| model.get(name).and_then(Tree::map).cloned().unwrap_or_default();
        for (key, item) in section("networks") {
            let network = self.network(&key, &item);
            self.networks.insert(key, network);
        }
        if !self.networks.contains_key("default") {
            let spec = NetworkSpec { name: format!("{}_default", self.project), ..NetworkSpec::default() };
            self.networks.insert("default".to_owned(), Network { spec, mode: Mode::Bridge });
        }
        for (key, item) in section("volumes") {
            let volume = self.named_volume(&key, &item);
            self.volumes.insert(key, volume);
        }
        for kind in ["secrets", "configs"] {
            for (key, item) in section(kind) {
                self.file_object(kind, &key, &item);
            }
        }
    }

    /// The name on the host, and whether someone else makes it.
    fn name_of(&mut self, key: &str, tree: &Tree) -> (String, bool) {
        let external = tree.get("external");
        let named = external.and_then(|tree| tree.text_of("name"));
        let is_external = external.is_some_and(|tree| tree.map().is_some() || tree.boolean() == Some(true));
        let name = match tree.text_of("name").or(named) {
            Some(name) => name.to_owned(),
            None if is_external => key.to_owned(),
            None => format!("{}_{key}", self.project),
        };
        (name, is_external)
    }

    /// An external resource is described by its name alone.
    fn external_alone(&mut self, tree: &Tree, path: &str) {
        for (key, item) in tree.map().into_iter().flatten() {
            if !["name", "external"].contains(&key.as_str()) && !key.starts_with("x-") {
                let message = format!("`external` and `{key}` exclude each other");
                let path = join_key(path, key);
                self.sink()
                    .error_at(codes::CONFLICT, item.key, &path, message)
                    .help("remove one of the two: who makes it decides about it");
            }
        }
    }

    fn network(&mut self, key: &str, item: &Item) -> Network {
        let tree = &item.tree;
        let path = join_key("networks", key);
        let (name, external) = self.name_of(key, tree);
        let mut mode = Mode::Bridge;
        if let Some(driver) = tree.get("driver").filter(|driver| driver.text().is_some_and(|text| !text.is_empty())) {
            let path = join_key(&path, "driver");
            match driver.str() {
                Some("bridge" | "default") | None => {}
                Some("host") => mode = Mode::Host,
                Some("none" | "null") => mode = Mode::None,
                Some("overlay") => {
                    let message = "an overlay network is a bridge here: there is one node";
                    self.sink().warn(codes::NO_EFFECT, driver, &path, message);
                }
                Some(other) => {
                    let message = format!("the network driver `{other}` is not supported");
                    self.sink()
                        .error(codes::REJECTED_FIELD, driver, &path, message)
                        .help("use `bridge`, `host` or `none`");
                }
            }
        }
        // The predefined networks of Docker by their names.
        if external && name == "host" {
            mode = Mode::Host;
        } else if external && name == "none" {
            mode = Mode::None;
        }
        let mut spec = NetworkSpec {
            name,
            internal: tree.bool_of("internal").unwrap_or(false),
            external,
            ipv6: tree.bool_of("enable_ipv6").unwrap_or(false),
            subnets: Vec::new(),
        };
        if let Some(ipam) = tree.get("ipam") {
            let path = join_key(&path, "ipam");
            if let Some(driver) =
                ipam.get("driver").filter(|d| d.str().is_some_and(|d| !d.is_empty() && d != "default"))
            {
                let message = format!("the IPAM driver `{}` is not supported", driver.text().unwrap_or_default());
                self.sink().error(codes::REJECTED_FIELD, driver, &join_key(&path, "driver"), message);
            }
            for (config, path) in ipam.items_of("config", &path) {
                let Some(subnet) = config.get("subnet") else { continue };
                let Some(text) = subnet.str() else { continue };
                if is_cidr(text) {
                    spec.subnets.push(text.to_owned());
                } else if !(subnet.unset && text.is_empty()) {
                    let message = format!("`{text}` is not a subnet");
                    let path = join_key(&path, "subnet");
                    self.sink().error(codes::BAD_VALUE, subnet, &path, message).help("write it like 172.28.0.0/16");
                }
            }
        }
        Network { spec, mode }
    }

    fn named_volume(&mut self, key: &str, item: &Item) -> NamedVolume {
        let tree = &item.tree;
        let path = join_key("volumes", key);
        let (name, external) = self.name_of(key, tree);
        let mut source = VolumeSource::Named { name };
        if external {
            self.external_alone(tree, &path);
            return NamedVolume { source };
        }
        if let Some(driver) = tree.get("driver")
            && let Some(text) = driver.str()
            && !["", "local", "default"].contains(&text)
        {
            let message = format!("the volume driver `{text}` is not supported");
            let path = join_key(&path, "driver");
            self.sink()
                .error(codes::REJECTED_FIELD, driver, &path, message)
                .help("use `local`, or mount the path on the host");
        }
        let Some(options) = tree.get("driver_opts").filter(|options| options.map().is_some_and(|map| !map.is_empty()))
        else {
            return NamedVolume { source };
        };
        let path = join_key(&path, "driver_opts");
        let kind = options.text_of("type").unwrap_or("none");
        let flags = options.text_of("o").unwrap_or_default();
        let device = options.get("device").filter(|device| device.text().is_some_and(|text| !text.is_empty()));
        match (kind, device) {
            ("tmpfs", _) => {
                let size = flags
                    .split(',')
                    .find_map(|flag| flag.strip_prefix("size="))
                    .and_then(crate::manifest::compose::units::bytes);
                source = VolumeSource::EmptyDir { memory: true, size_limit: size };
            }
            ("none" | "bind", Some(device))
                if flags.split(',').any(|flag| flag == "bind" || flag == "rbind") || kind == "bind" =>
            {
                let written = device.text().unwrap_or_default();
                // The local driver binds what exists; it makes nothing.
                source = VolumeSource::Bind { path: self.host_path(device, &written), create: false };
            }
            ("none", None) => {
                self.sink().warn(codes::NO_EFFECT, options, &path, "these driver options have no effect");
            }
            _ => {
                let message = format!("volumes of type `{kind}` are not supported");
                self.sink()
                    .error(codes::REJECTED_VOLUME, options, &path, message)
                    .help("mount it on the host and bind its path");
            }
        }
        NamedVolume { source }
    }

    fn file_object(&mut self, kind: &'static str, key: &str, item: &Item) {
        let tree = &item.tree;
        if tree.map().is_none() {
            return;
        }
        let path = join_key(kind, key);
        let (_, external) = self.name_of(key, tree);
        if external {
            return;
        }
        let allowed: &[&str] =
            if kind == "configs" { &["file", "environment", "content"] } else { &["file", "environment"] };
        let given: Vec<&str> =
            allowed.iter().copied().filter(|field| tree.get(field).is_some_and(|t| !t.is_null())).collect();
        let names = allowed.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
        if given.len() != 1 {
            // A driver is refused by the table already.
            if tree.get("driver").is_none() {
                let message = format!("exactly one of {names} or `external` must be set");
                self.sink().error_at(codes::EXACTLY_ONE, item.key, &path, message);
            }
        }
    }

    /// Content of a config or secret that a service uses; warnings go to the place of the declaration.
    pub(super) fn content(&mut self, kind: &'static str, key: &str) -> Content {
        let Some(item) = self.model.get(kind).and_then(Tree::map).and_then(|map| map.get(key)) else {
            return Content::Absent;
        };
        let (tree, path) = (&item.tree, join_key(kind, key));
        let (name, external) = self.name_of(key, tree);
        let what = kind.trim_end_matches('s');
        if external {
            let message = format!("the external {what} `{name}` must be in the namespace `{}`", self.project);
            let object = if kind == "configs" { "ConfigMap" } else { "Secret" };
            self.sink()
                .warn_at(codes::MISSING_REFERENCE, item.key, &path, message)
                .help(format!("declare a {object} `{name}` with the key `{CONTENT_KEY}` there"));
            return Content::Absent;
        }
        if let Some(content) = tree.get("content").and_then(Tree::str) {
            return Content::Bytes(content.as_bytes().to_vec());
        }
        if let Some(variable) = tree.get("environment")
            && let Some(wanted) = variable.str()
        {
            return match self.session.sink.env(variable.place).get(wanted) {
                Some(value) => Content::Bytes(value.clone().into_bytes()),
                None => {
                    let message = format!("the variable `{wanted}` of the {what} `{key}` is not set");
                    let hint = format!("set it in `.env`; until then services that use the {what} do not start");
                    self.sink().warn(codes::UNSET_VARIABLE, variable, &path, message).help(hint);
                    Content::Absent
                }
            };
        }
        match tree.get("file") {
            Some(Tree { val: Val::Str(file), place, .. }) => self.file_content(file, *place, what, &path),
            _ => Content::Absent,
        }
    }

    fn file_content(&mut self, file: &str, place: Place, what: &str, path: &str) -> Content {
        let target = self.read_path(place, file);
        match self.session.file(&target) {
            Some(FileState::Content(bytes)) => Content::Bytes(bytes.to_vec()),
            Some(FileState::Directory) => {
                Content::Directory(self.session.input.project_dir.join(&target).display().to_string())
            }
            Some(FileState::Missing) => {
                let message = format!("the file `{}` of this {what} does not exist", target.display());
                let hint = format!("create it; until then services that use the {what} do not start");
                self.sink().warn_at(codes::MISSING_FILE, place, path, message).help(hint);
                Content::Absent
            }
            None => Content::Absent,
        }
    }

    pub(super) fn keep_config(&mut self, key: &str, bytes: Vec<u8>) {
        self.configs.insert(key.to_owned(), ConfigData([(CONTENT_KEY.to_owned(), bytes)].into()));
    }

    pub(super) fn keep_secret(&mut self, key: &str, bytes: Vec<u8>) {
        let data = [(CONTENT_KEY.to_owned(), SecretBytes::new(bytes))].into();
        self.secrets.insert(key.to_owned(), SecretData { data, kind: "Opaque".to_owned() });
    }

    /// The name under which a config or secret is an object.
    pub(super) fn object_name(&mut self, kind: &'static str, key: &str) -> String {
        match self.model.get(kind).and_then(|section| section.get(key)).cloned() {
            Some(tree) => {
                let (name, external) = self.name_of(key, &tree);
                if external { name } else { key.to_owned() }
            }
            None => key.to_owned(),
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(length)) = (address.parse::<std::net::IpAddr>(), length.parse::<u8>()) else { return false };
    length <= if address.is_ipv4() { 32 } else { 128 }
}
