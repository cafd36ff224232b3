//! The real binary as a child process, and its command line.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::metrics::Metrics;
use crate::sandbox::Sandbox;
use crate::status::Status;

/// How long the harness waits for things that take a moment; a loaded machine with two cores is slow.
pub const SOON: Duration = Duration::from_secs(30);

/// How long a command may take before it is ended.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// What a command gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + signal number when a signal ended it.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

impl Output {
    /// The output of a command that must have worked.
    ///
    /// # Panics
    /// When the exit code is not 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "exit code {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr);
        self
    }
}

/// Polls until `probe` gives something; short waits, no fixed ones.
///
/// # Errors
/// The description of what did not happen, when the time is over.
pub fn poll<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!("did not happen within {limit:?}: {what}"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

impl Sandbox {
    /// The binary with this sandbox's directories and names, the command still to be added.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.binary());
        // Variables of the test run are no settings of the product.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAINSTAY_")) {
            command.env_remove(name);
        }
        // Settings of the agent go in as variables: every command reads them, wherever its flags are.
        command
            .arg("--data-dir")
            .arg(self.data())
            .arg("--run-dir")
            .arg(self.run())
            .env("MAINSTAY_METRICS_LISTEN", "127.0.0.1:0")
            .env("MAINSTAY_BRIDGE", self.bridge())
            .env("MAINSTAY_CGROUP_PARENT", self.cgroup_parent())
            .env("NO_COLOR", "1")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the binary to its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        self.finish(command, arguments)
    }

    /// `mainstay down`, with or without an agent.
    ///
    /// # Panics
    /// When it does not do it.
    #[track_caller]
    pub fn down(&self) {
        self.cli(&["down", "--yes"]).ok();
    }

    /// Runs a prepared command to its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end.
    pub fn finish(&self, mut command: Command, arguments: &[&str]) -> Output {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        // Files, not pipes: no reader threads, and a command that is ended by force still shows what it said.
        let path = |kind: &str| self.dir().join(format!("cli-{number}.{kind}"));
        let file = |kind: &str| File::create(path(kind)).expect("the temporary directory is ours");
        let mut child = command
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let ended = poll("the command's end", COMMAND_LIMIT, || child.try_wait().expect("the child is ours"));
        if ended.is_err() {
            drop(child.kill());
            drop(child.wait());
        }
        let text = |kind: &str| {
            let bytes = fs::read(path(kind)).unwrap_or_default();
            drop(fs::remove_file(path(kind)));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text("stdout"), text("stderr"));
        match ended {
            Ok(status) => Output { code: code(status), stdout, stderr },
            Err(why) => panic!("mainstay {}: {why}\nstdout: {stdout}\nstderr: {stderr}", arguments.join(" ")),
        }
    }

    /// The JSON that a command prints; its exit code may be 0 or 1 (the answer is no).
    ///
    /// # Panics
    /// When it could not do it or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let output = self.cli(&all);
        assert!(output.code <= 1, "mainstay {}: exit code {}\n{}", all.join(" "), output.code, output.stderr);
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|e| panic!("mainstay {} printed no JSON: {e}\n{}", all.join(" "), output.stdout))
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A running `mainstay run`. Dropping it ends the agent alone, by kill -9; the sandbox clears the rest away.
#[derive(Debug)]
pub struct Agent<'a> {
    sandbox: &'a Sandbox,
    child: Option<Child>,
    log: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The directory of manifests that it is started with.
    manifests: Option<PathBuf>,
}

impl<'a> Agent<'a> {
    /// Starts it on the sandbox's manifests and waits until its API answers.
    ///
    /// # Panics
    /// When it ends or does not answer.
    pub fn start(sandbox: &'a Sandbox) -> Self {
        Self::start_with(sandbox, &[], &[])
    }

    /// Starts it with more arguments (after `run`) and variables.
    ///
    /// # Panics
    /// As [`Agent::start`].
    pub fn start_with(sandbox: &'a Sandbox, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_on(sandbox, Some(sandbox.manifests()), arguments, environment)
    }

    /// Starts it with a configuration file, which has to name the sources.
    ///
    /// # Panics
    /// As [`Agent::start`].
    pub fn start_configured(sandbox: &'a Sandbox, file: &Path) -> Self {
        Self::start_on(sandbox, None, &[], &[("MAINSTAY_CONFIG", &file.to_string_lossy())])
    }

    fn start_on(
        sandbox: &'a Sandbox,
        manifests: Option<PathBuf>,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut agent = Self {
            sandbox,
            child: None,
            log: sandbox.dir().join("agent.log"),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            manifests,
        };
        agent.launch();
        agent
    }

    fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("the directory is ours");
        let mut command = self.sandbox.command();
        command
            .arg("run")
            .args(&self.arguments)
            .args(&self.manifests)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone().expect("a file can be duplicated"))
            .stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}")));
        let socket = self.socket();
        self.wait_for("the API socket answers", SOON, |agent| {
            if let Some(status) = agent.exited() {
                panic!("the agent ended at start: {status}\n{}", agent.tail());
            }
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
    }

    /// Sets a variable for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Waits until nothing of any workload is left while the agent goes on: no mount, pinned namespace, interface,
    /// cgroup or process.
    ///
    /// # Panics
    /// When something stays.
    #[track_caller]
    pub fn assert_no_workloads(&mut self) {
        let agent = self.pid();
        let sandbox = self.sandbox;
        if let Err(why) =
            poll("no trace of workloads", SOON, || sandbox.leaks_of_workloads(&[agent]).is_empty().then_some(()))
        {
            panic!("{why}; left:\n  {}\n--- log\n{}", sandbox.leaks_of_workloads(&[agent]).join("\n  "), self.tail());
        }
    }

    /// The sandbox it runs in.
    pub fn sandbox(&self) -> &'a Sandbox {
        self.sandbox
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.sandbox.run().join("mainstay.sock")
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the agent is running").id()
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("the child is ours")
    }

    /// kill -9: no chance to tidy up.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// TERM, and its exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) -> i32 {
        let pid = i32::try_from(self.pid()).expect("a pid fits");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("the child is ours");
        let status = self.wait_for("the agent ends at TERM", SOON, Self::exited);
        self.child = None;
        code(status)
    }

    /// kill -9 and a new start.
    pub fn restart(&mut self) {
        self.kill9();
        self.launch();
    }

    /// Starts it again after [`Agent::kill9`] or [`Agent::stop`].
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the agent is still running");
        self.launch();
    }

    /// Runs a command of the binary.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.sandbox.cli(arguments)
    }

    /// The JSON that a command prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.sandbox.json(arguments)
    }

    /// `status -o json`.
    ///
    /// # Panics
    /// When it is not of the shape that users rely on.
    pub fn status(&self) -> Status {
        let value = self.json(&["status"]);
        serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("status has another shape: {e}\n{value:#}"))
    }

    /// Everything that `status` says about a workload and about faults of sources, one text.
    ///
    /// # Panics
    /// When `status` does not answer.
    pub fn told(&self, workload: &str) -> String {
        let status = self.json(&["status"]);
        let found = status["workloads"].as_array().into_iter().flatten().find(|found| found["name"] == workload);
        format!("{} {}", found.map(Value::to_string).unwrap_or_default(), self.status().errors())
    }

    /// Where metrics are served.
    ///
    /// # Panics
    /// When `<run-dir>/metrics.addr` does not appear.
    pub fn metrics_address(&self) -> String {
        let file = self.sandbox.run().join("metrics.addr");
        let read = || fs::read_to_string(&file).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        poll("the file metrics.addr", SOON, read).unwrap_or_else(|why| panic!("{why}\n{}", self.tail()))
    }

    /// One scrape.
    ///
    /// # Panics
    /// When the endpoint does not answer with 200.
    pub fn metrics(&self) -> Metrics {
        let response = crate::http::get(self.metrics_address(), "/metrics").expect("the metrics endpoint answers");
        assert_eq!(response.status, 200, "{}", response.text());
        Metrics::parse(&response.text())
    }

    /// Waits for a state; on timeout shows status and the end of the log.
    ///
    /// # Panics
    /// When the time is over.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, limit: Duration, mut probe: impl FnMut(&mut Self) -> Option<T>) -> T {
        match poll(what, limit, || probe(self)) {
            Ok(found) => found,
            Err(why) => {
                let status = if self.child.is_some() { self.cli(&["status"]).stdout } else { "(not running)".into() };
                panic!("{why}\n--- status\n{status}\n--- log\n{}", self.tail())
            }
        }
    }

    /// Waits until the status is as asked.
    ///
    /// # Panics
    /// When the time is over.
    #[track_caller]
    pub fn wait_status<T>(&mut self, what: &str, mut probe: impl FnMut(&Status) -> Option<T>) -> T {
        self.wait_for(what, SOON, |agent| probe(&agent.status()))
    }

    /// Waits until a workload has this many pods ready, and returns the pids of its running containers.
    ///
    /// # Panics
    /// When the time is over.
    #[track_caller]
    pub fn wait_ready(&mut self, workload: &str, pods: u32) -> Vec<i32> {
        self.wait_status(&format!("{workload} has {pods} ready"), |status| {
            let found = status.workload(workload)?;
            (found.ready == pods && found.desired == pods).then(|| status.pids(workload))
        })
    }

    /// Watches for a while that the processes of these workloads stay the same: long enough for everything that waits
    /// before it acts.
    ///
    /// # Panics
    /// When one changes.
    #[track_caller]
    pub fn assert_untouched(&self, names: &[&str], pids: &[Vec<i32>], length: Duration) {
        let seen = poll("the first pass", SOON, || (self.status().passes > 0).then_some(()));
        seen.unwrap_or_else(|why| panic!("{why}\n{}", self.tail()));
        let end = Instant::now() + length;
        while Instant::now() < end {
            let status = self.status();
            let now: Vec<Vec<i32>> = names.iter().map(|name| status.pids(name)).collect();
            assert_eq!(now, pids, "something was touched\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a page on this host's loopback answers 200 with a body that fits, and returns it.
    ///
    /// # Panics
    /// When the time is over.
    #[track_caller]
    pub fn wait_page(&mut self, port: u16, path: &str, fits: impl Fn(&str) -> bool) -> String {
        self.wait_for(&format!("127.0.0.1:{port}{path} answers as asked"), SOON, |_| {
            let response = crate::http::get(("127.0.0.1", port), path).ok()?;
            (response.status == 200 && fits(&response.text())).then(|| response.text())
        })
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines it wrote.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the agent's log ({})\n{}", self.sandbox.name(), self.tail());
        }
        self.kill9();
    }
}
