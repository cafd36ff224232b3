//! Image, command, environment, hooks and logging of a container.

use super::Lower;
use crate::codes;
use crate::image_ref::ImageRef;
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Item, Tree, Val, join_key};
use crate::manifest::compose::{FileState, dotenv, shell, units};
use crate::pod::{ContainerSpec, EnvSource, EnvVar, Handler, LogOptions, PodSpec, PullPolicy, RestartPolicy};

impl Lower<'_, '_> {
    pub(super) fn container(&mut self, tree: &Tree, path: &str, item: &Item, container: &mut ContainerSpec) {
        self.image(tree, path, item, container);
        container.pull_policy = Some(self.pull_policy(tree, path));
        container.platform = self.platform(tree, path);
        container.command = self.command(tree, path, "entrypoint");
        container.args = self.command(tree, path, "command");
        if let Some(text) = tree.text_of("entrypoint")
            && text.trim().is_empty()
        {
            container.command = Some(Vec::new());
        }
        container.working_dir = tree.text_of("working_dir").map(str::to_owned);
        container.env = self.environment(tree, path);
        container.stdin = tree.bool_of("stdin_open").unwrap_or(false);
        container.tty = tree.bool_of("tty").unwrap_or(false);
        container.init = tree.bool_of("init").unwrap_or(false);
        container.stop_signal = self.stop_signal(tree, path);
        container.post_start = self.hooks(tree, path, "post_start");
        container.pre_stop = self.hooks(tree, path, "pre_stop");
        container.log = self.logging(tree, path);
    }

    fn image(&mut self, tree: &Tree, path: &str, item: &Item, container: &mut ContainerSpec) {
        let build = tree.get("build").is_some_and(|build| !build.is_null());
        // A provider brings no container; it is refused by the table.
        if tree.get("provider").is_some() {
            return;
        }
        if let Some(build) = tree.get("build") {
            for (item, path) in build.items_of("secrets", &join_key(path, "build")) {
                let name = item.str().or_else(|| item.get("source").and_then(Tree::str)).unwrap_or_default().to_owned();
                let declared = self.model.get("secrets").and_then(Tree::map);
                if !name.is_empty() && declared.is_none_or(|map| !map.contains_key(&name)) {
                    let known: Vec<String> = declared.map(|map| map.keys().cloned().collect()).unwrap_or_default();
                    self.undefined("secret", &name, item, &path, &known);
                }
            }
        }
        let Some(image) = tree.get("image").filter(|image| image.str().is_some_and(|text| !text.is_empty())) else {
            let wrong_form = tree.get("image").is_some_and(|image| image.str().is_none());
            // Its variable may be set in a file that is not at hand; that it is not set here is said already.
            let unknown = self.session.input.neighbours_unknown && tree.get("image").is_some_and(|image| image.unset);
            if wrong_form || unknown {
                return;
            }
            let name = &container.name;
            if build {
                let message = format!("the service `{name}` has only `build`: images are not built");
                let at = tree.get("build").unwrap_or(tree).clone();
                self.sink().error(codes::NO_BUILD, &at, &join_key(path, "build"), message).help(
                    "build and push the image (`docker build -t REGISTRY/NAME:TAG --push .`) and name it in `image:`",
                );
            } else if !self.sink().has_error_below(&join_key(path, "extends")) {
                let message = format!("the service `{name}` has neither `image` nor `build`");
                self.sink().error_at(codes::MISSING_FIELD, item.key, path, message).help("add `image:`");
            }
            return;
        };
        let path_image = join_key(path, "image");
        match ImageRef::parse(image.str().unwrap_or_default()) {
            Ok(parsed) => container.image = Some(parsed),
            // What is wrong with the variable itself was said.
            Err(_) if self.sink().has_error_at(image.place) => {}
            Err(_) if image.unset => {
                let message = "the image is incomplete since a variable in it is not set; the service cannot start";
                self.sink().warn(codes::BAD_IMAGE, image, &path_image, message).help("set the variable in `.env`");
            }
            Err(error) => {
                self.sink().error(codes::BAD_IMAGE, image, &path_image, error.to_string());
            }
        }
        if build {
            let at = tree.get("build").unwrap_or(tree).clone();
            let message = "`build` has no effect: the image is pulled, not built";
            self.sink()
                .warn(codes::NO_EFFECT, &at, &join_key(path, "build"), message)
                .help("push the image to the registry that `image` names");
        }
    }

    fn pull_policy(&mut self, tree: &Tree, path: &str) -> PullPolicy {
        let Some(at) = tree.get("pull_policy") else { return PullPolicy::IfNotPresent };
        let text = at.str().unwrap_or_default();
        match text {
            "" | "missing" | "if_not_present" => PullPolicy::IfNotPresent,
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            "build" => {
                let message = "`build` is read as `missing`: the image is pulled, not built";
                self.sink().warn(codes::NO_EFFECT, at, &join_key(path, "pull_policy"), message);
                PullPolicy::IfNotPresent
            }
            "daily" | "weekly" | "refresh" => PullPolicy::Always,
            _ if text.strip_prefix("every_").and_then(units::duration).is_some() => PullPolicy::Always,
            _ => {
                let message = format!("`{text}` is not a pull policy");
                self.sink()
                    .error(codes::BAD_VALUE, at, &join_key(path, "pull_policy"), message)
                    .help("use always, never, missing, build, daily, weekly or every_12h");
                PullPolicy::IfNotPresent
            }
        }
    }

    fn platform(&mut self, tree: &Tree, path: &str) -> Option<String> {
        let at = tree.get("platform")?;
        let text = tree.text_of("platform")?;
        let os = text.split('/').next().unwrap_or_default();
        let parts = text.split('/').count();
        let path = join_key(path, "platform");
        if os.eq_ignore_ascii_case("windows") {
            self.sink().error(codes::REJECTED_WINDOWS, at, &path, "containers for Windows are not supported");
            return None;
        }
        // `linux` or `arm64` alone are short for what the host has beside.
        let valid = text
            .split('/')
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)));
        if !valid || parts > 3 {
            self.sink()
                .error(codes::BAD_VALUE, at, &path, format!("`{text}` is not a platform"))
                .help("write it like linux/arm64");
            return None;
        }
        Some(if parts == 1 && os != "linux" { format!("linux/{text}") } else { text.to_owned() })
    }

    /// `command` or `entrypoint`.
    fn command(&mut self, tree: &Tree, path: &str, key: &str) -> Option<Vec<String>> {
        let at = tree.get(key)?;
        match &at.val {
            Val::Str(text) => match shell::split(text) {
                Ok(words) => {
                    if let Some(operator) = words.iter().find(|word| OPERATORS.contains(&word.as_str())) {
                        let message = format!("`{operator}` means nothing here: the words of `{key}` go to no shell");
                        self.sink()
                            .warn(codes::BAD_VALUE, at, &join_key(path, key), message)
                            .help("write [\"sh\", \"-c\", \"...\"]");
                    }
                    Some(words)
                }
                Err(error) => {
                    let message = format!("`{key}` cannot be split into words: {error}");
                    self.sink()
                        .error(codes::BAD_VALUE, at, &join_key(path, key), message)
                        .help("close the quote, or write a list");
                    None
                }
            },
            Val::Seq(items) => Some(items.iter().filter_map(Tree::text).collect::<Vec<_>>()).map(|words| {
                // A single empty word clears the image's entrypoint.
                if key == "entrypoint" && words == [""] { Vec::new() } else { words }
            }),
            _ => None,
        }
    }

    /// `env_file`, then `environment` over it.
    pub(super) fn environment(&mut self, tree: &Tree, path: &str) -> Vec<EnvVar> {
        let mut env: Vec<(String, String)> = Vec::new();
        self.env_files(tree, path, &mut env);
        let path = join_key(path, "environment");
        for (name, value, place) in tree.pairs_of("environment") {
            if name.is_empty() {
                let message = "a variable has no name";
                // With the neighbours unknown the name may be that of a variable.
                if self.session.input.neighbours_unknown {
                    self.sink().warn_at(codes::BAD_VALUE, place, &path, message);
                } else {
                    self.sink().error_at(codes::BAD_VALUE, place, &path, message);
                }
                continue;
            }
            match value.or_else(|| self.session.sink.env(place).get(&name).cloned()) {
                Some(value) => put(&mut env, name, value),
                // Without a value anywhere it is not there at all, whatever the image or a file says.
                None => env.retain(|(other, _)| *other != name),
            }
        }
        env.into_iter().map(|(name, value)| EnvVar { name, source: EnvSource::Literal(value) }).collect()
    }

    fn env_files(&mut self, tree: &Tree, path: &str, env: &mut Vec<(String, String)>) {
        let path = join_key(path, "env_file");
        let files: Vec<(&Tree, Option<&Tree>)> = match tree.get("env_file").map(|t| (&t.val, t)) {
            Some((Val::Str(_), at)) => vec![(at, None)],
            Some((Val::Seq(items), _)) => items
                .iter()
                .filter_map(|item| {
                    if item.map().is_some() { Some((item.get("path")?, Some(item))) } else { Some((item, None)) }
                })
                .collect(),
            _ => Vec::new(),
        };
        for (at, options) in files {
            let Some(written) = at.str() else { continue };
            let target = self.read_path(at.place, written);
            let required = options.and_then(|options| options.bool_of("required")).unwrap_or(true);
            let raw = match options.and_then(|options| options.get("format")).and_then(Tree::str) {
                None | Some("" | "default") => false,
                Some("raw") => true,
                Some(other) => {
                    let message = format!("`{other}` is not a format of env files");
                    self.sink().error(codes::BAD_VALUE, at, &path, message).help("use `raw`, or leave it out");
                    continue;
                }
            };
            match self.session.file(&target) {
                Some(FileState::Content(bytes)) => {
                    let outer = self.session.sink.env(at.place);
                    let before = env.clone();
                    let lookup = |name: &str| {
                        outer
                            .get(name)
                            .cloned()
                            .or_else(|| before.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone()))
                    };
                    let entries = if raw { dotenv::parse_raw(bytes) } else { dotenv::parse(bytes, &lookup) };
                    match entries {
                        Ok(entries) => {
                            for (name, value) in entries {
                                if let Some(value) = value.or_else(|| outer.get(&name).cloned()) {
                                    put(env, name, value);
                                }
                            }
                        }
                        Err(error) => self.session.bad_env_file(&target, &error),
                    }
                }
                Some(FileState::Missing | FileState::Directory) if required => {
                    let message = format!("the env file `{}` does not exist", target.display());
                    self.missing(at.place, &path, message).help("create it, or write `path:` and `required: false`");
                }
                _ => {}
            }
        }
    }

    fn stop_signal(&mut self, tree: &Tree, path: &str) -> Option<String> {
        let at = tree.get("stop_signal")?;
        let text = tree.text_of("stop_signal")?;
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let realtime = name.strip_prefix("RTMIN").or_else(|| name.strip_prefix("RTMAX"));
        let valid = SIGNALS.contains(&name)
            || name.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number))
            || realtime.is_some_and(|rest| rest.is_empty() || rest[1..].parse::<u8>().is_ok_and(|n| n <= 15));
        if !valid {
            let message = format!("`{text}` is not a signal");
            self.sink()
                .error(codes::BAD_VALUE, at, &join_key(path, "stop_signal"), message)
                .help("write it like SIGTERM or SIGINT");
            return None;
        }
        Some(if name.parse::<u8>().is_ok() { name.to_owned() } else { format!("SIG{name}") })
    }

    fn hooks(&mut self, tree: &Tree, path: &str, key: &str) -> Vec<Handler> {
        let mut handlers = Vec::new();
        for (hook, path) in tree.items_of(key, path) {
            let Some(words) = self.command(hook, &path, "command").filter(|words| !words.is_empty()) else {
                continue;
            };
            let mut env = Vec::new();
            for (name, value, place) in hook.pairs_of("environment") {
                if let Some(value) = value.or_else(|| self.session.sink.env(place).get(&name).cloned()) {
                    env.push(format!("{name}={value}"));
                }
            }
            let mut command = Vec::new();
            if let Some(directory) = hook.text_of("working_dir") {
                // `env -C` is missing from busybox; a shell is as common as `env`.
                command.extend(["/bin/sh", "-c", "cd \"$0\" && exec \"$@\""].map(str::to_owned));
                command.push(directory.to_owned());
            }
            if !env.is_empty() {
                command.push("env".to_owned());
                command.extend(env);
            }
            command.extend(words);
            handlers.push(Handler::Exec(command));
        }
        handlers
    }

    /// Containers that run to their end before the service (`pre_start`).
    pub(super) fn pre_start(&mut self, tree: &Tree, path: &str, service: &ContainerSpec, spec: &mut PodSpec) {
        for (index, (step, path)) in tree.items_of("pre_start", path).into_iter().enumerate() {
            let mut init = ContainerSpec {
                name: format!("{}-pre-start-{index}", service.name),
                restart_policy: None,
                liveness: None,
                readiness: None,
                startup: None,
                no_image_check: false,
                image_check: None,
                ports: Vec::new(),
                post_start: Vec::new(),
                pre_stop: Vec::new(),
                ..service.clone()
            };
            if let Some(image) = step.get("image").filter(|image| image.str().is_some()) {
                match ImageRef::parse(image.str().unwrap_or_default()) {
                    Ok(parsed) => {
                        init.image = Some(parsed);
                        (init.command, init.args) = (None, None);
                    }
                    Err(error) => {
                        self.sink().error(codes::BAD_IMAGE, image, &join_key(&path, "image"), error.to_string());
                    }
                }
            }
            if step.get("command").is_some() {
                init.args = self.command(step, &path, "command");
            }
            if let Some(user) = step.text_of("user") {
                init.security.user = Some(user.to_owned());
            }
            if let Some(privileged) = step.bool_of("privileged") {
                init.security.privileged = privileged;
            }
            if let Some(directory) = step.text_of("working_dir") {
                init.working_dir = Some(directory.to_owned());
            }
            for (name, value, place) in step.pairs_of("environment") {
                if let Some(value) = value.or_else(|| self.session.sink.env(place).get(&name).cloned()) {
                    init.env.retain(|other| other.name != name);
                    init.env.push(EnvVar { name, source: EnvSource::Literal(value) });
                }
            }
            debug_assert!(init.restart_policy != Some(RestartPolicy::Always), "it must run to its end");
            spec.init_containers.push(init);
        }
    }

    fn logging(&mut self, tree: &Tree, path: &str) -> Option<LogOptions> {
        let logging = tree.get("logging")?;
        let path = join_key(path, "logging");
        match logging.text_of("driver") {
            None | Some("json-file" | "local") => {}
            Some("none") => return Some(LogOptions { none: true, ..LogOptions::default() }),
            Some(other) => {
                let at = logging.get("driver").unwrap_or(logging);
                let message = format!("the log driver `{other}` has no effect: logs are kept in files");
                self.sink()
                    .warn(codes::NO_EFFECT, at, &join_key(&path, "driver"), message)
                    .help("read them with `mainstay logs`, or let a log shipper read the files");
                return None;
            }
        }
        let options = logging.get("options")?;
        let path = join_key(&path, "options");
        let mut log = LogOptions::default();
        for (key, item) in options.map()? {
            let at = join_key(&path, key);
            let text = item.tree.text().unwrap_or_default();
            match key.as_str() {
                "max-size" => match units::bytes(&text) {
                    Some(size) => log.max_size = Some(size),
                    None if text == "-1" || (text.is_empty() && item.tree.unset) => {}
                    None => {
                        let message = format!("`{text}` is not a size");
                        self.sink().error(codes::BAD_VALUE, &item.tree, &at, message).help("write it like 10m");
                    }
                },
                "max-file" => match text.parse::<u32>() {
                    Ok(files) if files > 0 => log.max_files = Some(files),
                    _ if text.is_empty() && item.tree.unset => {}
                    _ => {
                        let message = format!("`{text}` is not a number of files");
                        self.sink().error(codes::BAD_VALUE, &item.tree, &at, message).help("write it like \"3\"");
                    }
                },
                "compress" | "mode" | "max-buffer-size" => {}
                _ => {
                    let message = format!("the log option `{key}` has no effect");
                    self.sink().warn_at(codes::NO_EFFECT, item.key, &at, message);
                }
            }
        }
        (log != LogOptions::default()).then_some(log)
    }
}

fn put(env: &mut Vec<(String, String)>, name: String, value: String) {
    match env.iter_mut().find(|(other, _)| *other == name) {
        Some(slot) => slot.1 = value,
        None => env.push((name, value)),
    }
}

/// What only a shell understands.
const OPERATORS: [&str; 7] = ["&&", "||", "|", ";", "&", ">", "<"];

const SIGNALS: [&str; 33] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
    "IO", "POLL", "PWR", "SYS",
];
