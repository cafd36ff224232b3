//! The socket that systemd has bound before the agent: questions wait in it while nobody answers, and it outlives the
//! agent and its reloads.

use std::io::{BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::agent::{SOON, poll};
use tests::{Sandbox, require_root};

/// Starts the agent as systemd does: the socket is descriptor 3, and it is told so by its process id.
fn start(sandbox: &Sandbox, socket: &UnixListener) -> Child {
    let plain = sandbox.command();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .arg("run")
        .arg(sandbox.manifests());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let socket = socket.try_clone().expect("a descriptor can be duplicated");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(sandbox.dir().join("agent.log"));
    let log = log.expect("the directory is ours");
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket))).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("there is a shell")
}

/// Asks before there is anybody to answer.
fn ask(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).expect("the socket is bound");
    stream.set_read_timeout(Some(SOON)).expect("the time is not zero");
    stream.write_all(b"GET /v1/version HTTP/1.0\r\n\r\n").expect("the question waits");
    stream
}

/// The answer's word for the agent that gave it.
fn instance(stream: UnixStream) -> String {
    let answer = tests::http::read_response(&mut BufReader::new(stream)).expect("it is answered");
    let value: Value = serde_json::from_str(&answer.text()).expect("the answer is JSON");
    value["instance"].as_str().expect("it says which agent it is").to_owned()
}

#[test]
fn questions_wait_in_the_socket_of_systemd() {
    if !require_root("questions_wait_in_the_socket_of_systemd") {
        return;
    }
    let sandbox = Sandbox::new("socket");
    std::fs::create_dir_all(sandbox.run()).expect("the directory is ours");
    let path = sandbox.run().join("mainstay.sock");
    let socket = UnixListener::bind(&path).expect("the directory is ours");
    let inode = || std::fs::metadata(&path).expect("it is bound").ino();
    let bound = inode();

    let early = ask(&path);
    let mut agent = start(&sandbox, &socket);
    let first = instance(early);
    assert_eq!(inode(), bound, "the agent answers on the socket that was there");

    // The program that takes over has it as well; none of the questions that come meanwhile is refused.
    let mut seen = vec![first.clone()];
    for _ in 0..2 {
        let mut reload = sandbox.command();
        let mut reload = reload.arg("reload").stderr(Stdio::null()).spawn().expect("the binary runs");
        while reload.try_wait().expect("the child is ours").is_none() {
            // One that came in the moment of the switch may be cut off, and is asked again.
            drop(UnixStream::connect(&path).expect("it is never refused"));
        }
        assert!(reload.wait().expect("the child is ours").success());
        let now = instance(ask(&path));
        assert!(!seen.contains(&now), "another agent answers");
        seen.push(now);
        assert_eq!(inode(), bound);
    }

    // Without an agent questions wait for the next one.
    kill(Pid::from_raw(i32::try_from(agent.id()).expect("a pid fits")), Signal::SIGTERM).expect("the agent runs");
    let ended = poll("the agent ends", SOON, || agent.try_wait().expect("the child is ours"));
    assert!(ended.expect("it ends").success());
    assert_eq!(inode(), bound, "it is systemd's");
    let waiting = ask(&path);
    let mut agent = start(&sandbox, &socket);
    assert!(!seen.contains(&instance(waiting)));

    kill(Pid::from_raw(i32::try_from(agent.id()).expect("a pid fits")), Signal::SIGTERM).expect("the agent runs");
    assert!(agent.wait().expect("the child is ours").success());
    drop(socket);
    std::fs::remove_file(&path).expect("it is ours");
    sandbox.down();
    sandbox.assert_clean();
}
