//! `exec` and `attach` with a terminal, as a person at one sees them: a pseudo-terminal of the test is the person's.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::mpsc;

use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::{Value, json};
use tests::agent::{SOON, poll};
use tests::manifest::pod;
use tests::{Agent, require_root, world};

/// A command at a terminal.
struct AtTerminal {
    master: std::fs::File,
    child: Child,
    said: String,
    output: mpsc::Receiver<Vec<u8>>,
}

impl AtTerminal {
    /// Starts it in a session of its own that the terminal controls, so that the kernel tells all of its processes of a
    /// new size.
    fn start(plain: &Command, rows: u16, columns: u16) -> Self {
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a pseudo-terminal can be had");
        let end = || slave.try_clone().expect("a descriptor can be duplicated");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the binary runs");
        // It holds further ends of the terminal until it is dropped: the output would not end with the child.
        drop((command, slave));
        let master = std::fs::File::from(master);
        let mut reader = master.try_clone().expect("a descriptor can be duplicated");
        let (send, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            // EIO is the end: nobody holds the other side any more.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master, child, said: String::new(), output }
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let found = poll(text, SOON, || {
            while let Ok(bytes) = self.output.try_recv() {
                self.said.push_str(&String::from_utf8_lossy(&bytes));
            }
            self.said.contains(text).then_some(())
        });
        assert!(found.is_ok(), "`{text}` was not said: {}", self.said);
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(self.master.as_fd(), size).expect("it is a terminal");
    }

    fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("it can be typed");
    }

    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        let ended = poll("the end of the command", SOON, || self.child.try_wait().expect("the child is ours"));
        ended.unwrap_or_else(|why| panic!("{why}: {}", self.said)).code()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_terminal_has_its_size_and_its_exit_code() {
    if !require_root("a_terminal_has_its_size_and_its_exit_code") {
        return;
    }
    let (sandbox, _registry, image) = world("tty");
    sandbox.write("web.json", &pod("web", &image, &["serve"]).to_string());
    let mut screen = pod("screen", &image, &["window"]);
    screen["spec"]["containers"][0]["stdin"] = json!(true);
    screen["spec"]["containers"][0]["tty"] = json!(true);
    screen["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("screen.json", &screen.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    agent.wait_ready("screen", 1);

    let mut exec = sandbox.command();
    exec.args(["exec", "-it", "web", "--", "/bin/fixture", "window"]);
    let mut exec = AtTerminal::start(&exec, 24, 80);
    exec.expect("window 24x80");
    exec.resize(40, 132);
    exec.expect("window 40x132");
    exec.type_keys("hello\n");
    exec.expect("typed hello");
    assert_eq!(exec.code(), Some(7), "{}", exec.said);

    let mut attach = sandbox.command();
    attach.args(["attach", "-i", "screen"]);
    let mut attach = AtTerminal::start(&attach, 30, 90);
    attach.expect("window 30x90");
    attach.resize(50, 140);
    attach.expect("window 50x140");
    attach.type_keys("bye\n");
    attach.expect("typed bye");
    assert_eq!(attach.code(), Some(7), "{}", attach.said);

    // Without a terminal, as somebody else, somewhere else.
    let seen = agent
        .cli(&["exec", "-u", "app", "-w", "/tmp", "-e", "EXTRA=yes", "web", "--", "/bin/fixture", "probe"])
        .ok()
        .stdout;
    let seen: Value = serde_json::from_str(&seen).expect("the fixture prints JSON");
    assert_eq!((&seen["identity"]["uid"], &seen["identity"]["groups"]), (&json!(1000), &json!([1000, 2000])));
    assert_eq!((&seen["cwd"], &seen["env"]["EXTRA"]), (&json!("/tmp"), &json!("yes")));
    assert_eq!((&seen["env"]["FROM_IMAGE"], &seen["env"]["HOME"]), (&json!("yes"), &json!("/home/app")));
    for (command, code) in [(["exit", "42"], 42), (["raise", "9"], 137)] {
        let mut words = vec!["exec", "web", "--", "/bin/fixture"];
        words.extend(command);
        assert_eq!(agent.cli(&words).code, code, "{command:?}");
    }
}
