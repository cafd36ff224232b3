//! Another OCI runtime, run as a program (`container::external`): it gets the whole configuration, user, capabilities,
//! system call filter and process limits included, which the built-in one is given by our own executor.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use spec::causes::chain;
use spec::pod::Seccomp;

use super::create::{Made, Streams, io_failure, write_bundle};
use super::{failure, permanent};
use crate::container::cgroup::DeviceRule;
use crate::container::lifecycle::Failure;
use crate::container::{ContainerConfig, Mount, seccomp};
use crate::exec::launch::Launch;
use crate::exec::limits;

/// Writes the bundle and makes the container.
pub(super) fn make(
    config: &ContainerConfig,
    launch: &Launch,
    streams: Streams,
    (oci, rules): (Value, &[DeviceRule]),
    warnings: &mut Vec<String>,
) -> Result<Made, Failure> {
    let external = config.external().ok_or_else(|| failure("create", "no runtime"))?;
    if config.init {
        let message =
            format!("`init: true` works with the built-in runtime only, not with `{}`", external.program.name);
        return Err(permanent("create", message));
    }
    let bundle = write_bundle(config, &whole(config, launch, oci, rules, warnings)?)?;
    let pid_file = config.dir.join("init.pid");
    let mut args: Vec<OsString> = vec!["--bundle".into(), bundle.into(), "--pid-file".into(), pid_file.clone().into()];
    let (stdio, console) = match streams {
        Streams::Pipes(ends) => (ends.map(Stdio::from), None),
        Streams::Terminal(console) => {
            args.extend(["--console-socket".into(), console.address().into()]);
            ([Stdio::null(), Stdio::null(), Stdio::null()], Some(console))
        }
    };
    external.call("create", &args, &[], stdio).map_err(told)?;
    let pid = fs::read_to_string(&pid_file).map_err(io_failure("create", "read the pid of the container"))?;
    let pid = pid.trim().parse().map_err(|_| failure("create", format!("{pid:?} is no pid")))?;
    let config = config.clone();
    let start = move || match config.external() {
        Some(external) => external.quiet("start", &[], &[]).map_err(told),
        None => Ok(()),
    };
    Ok(Made { pid, console, start: Box::new(start) })
}

/// What the runtime said, as a failure of the container: without its program (exit code 127) or in general (128).
fn told(message: String) -> Failure {
    // runc's and crun's words for a program that is not there or may not be executed.
    let program = ["exec: ", "executable file", "executable `"].iter().any(|words| message.contains(words));
    if program { permanent("exec", message) } else { failure("create", message) }
}

/// The configuration with all that the built-in runtime's executor does.
fn whole(
    config: &ContainerConfig,
    launch: &Launch,
    mut oci: Value,
    rules: &[DeviceRule],
    warnings: &mut Vec<String>,
) -> Result<Value, Failure> {
    let mut process = launch.oci_process()?;
    process["rlimits"] = json!(limits::oci(config, warnings));
    if let Some(profile) = oci["process"].get("apparmorProfile") {
        process["apparmorProfile"] = profile.clone();
    }
    oci["process"] = process;
    // Nothing newer is used, and crun up to 1.8 takes no other version.
    oci["ociVersion"] = json!("1.0.2");
    let profile = if config.security.privileged { Some(Seccomp::Unconfined) } else { config.security.seccomp.clone() };
    let filter = seccomp::oci(profile.as_ref(), launch.caps).map_err(|error| permanent("seccomp", chain(&error)))?;
    if let Some(filter) = filter {
        oci["linux"]["seccomp"] = filter;
    }
    // The cgroup is there with its limits; a runtime sets its own rules for devices whatever it finds.
    let rule = |rule: &DeviceRule| {
        let mut value = json!({"allow": true, "type": rule.kind.to_string(), "access": rule.access});
        for (name, number) in [("major", rule.major), ("minor", rule.minor)] {
            if let Some(number) = number {
                value[name] = json!(number);
            }
        }
        value
    };
    let mut devices = vec![json!({"allow": false, "access": "rwm"})];
    devices.extend(rules.iter().map(rule));
    oci["linux"]["resources"] = json!({"devices": devices});
    let target = Path::new("/sys/fs/cgroup");
    let covers = |mount: &Mount| target.starts_with(&mount.target) && mount.target != Path::new("/");
    let covered = config.mounts.iter().any(covers);
    if let Some(mounts) = oci["mounts"].as_array_mut().filter(|_| !covered) {
        let access = if config.security.privileged { "rw" } else { "ro" };
        let options = ["nosuid", "noexec", "nodev", "relatime", access];
        // Behind /sys, which is below it.
        let at = mounts.iter().position(|mount| mount["destination"] == "/sys").map_or(mounts.len(), |at| at + 1);
        let mount = json!({"destination": target, "type": "cgroup", "source": "cgroup", "options": options});
        mounts.insert(at, mount);
    }
    Ok(oci)
}
