//! The program in test images behaves as tests rely on, seen here without containers.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::poll;
use tests::http::{get, read_response};

fn fixture(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fixture"));
    command.args(arguments).stdout(Stdio::piped());
    command
}

/// Starts it and waits for its first line.
fn started(arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut child = fixture(arguments).env("MESSAGE", "hello").spawn().expect("the fixture was built");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("its first line says that it is there");
    (child, lines, first)
}

fn term(child: &Child) {
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("the child is ours");
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

#[test]
fn a_server_finishes_what_it_began() {
    let port = free_port();
    let (mut child, _lines, first) = started(&["serve", "--port", &port.to_string()]);
    assert!(first.starts_with("serving on"), "{first}");
    assert_eq!(get(("127.0.0.1", port), "/").expect("it serves").text(), "hello\n");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it serves");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be duplicated"));
    let mut ask = |path: &str| {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("the connection stays");
        read_response(&mut reader).expect("each request is answered")
    };
    for _ in 0..3 {
        assert_eq!(ask("/").head.header("connection"), Some("keep-alive"));
    }
    let slow = std::thread::spawn(move || get(("127.0.0.1", port), "/slow?ms=300"));
    poll("the slow request is under way", Duration::from_secs(5), || (ask("/").status == 200).then_some(()))
        .expect("it serves");
    term(&child);
    let last = poll("an answer that closes", Duration::from_secs(5), || {
        let answer = ask("/");
        (answer.head.header("connection") == Some("close")).then_some(answer)
    });
    assert_eq!(last.expect("it says so").status, 200);
    let slow = slow.join().expect("the client does not panic");
    // The slow request came before TERM or, on a loaded machine, after the end: never half of an answer.
    if let Ok(answer) = slow {
        assert_eq!(answer.text(), "hello\n");
    }
    assert_eq!(child.wait().expect("the child is ours").code(), Some(0));
}

#[test]
fn each_behaviour_ends_as_it_says() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("file").display().to_string();
    let run = |arguments: &[&str]| {
        let output = fixture(arguments).output().expect("the fixture was built");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(run(&["exit", "7"]).0, Some(7));
    assert_eq!(run(&["exit-after", "1", "3"]).0, Some(3));
    assert_eq!(run(&["sleep", "0.01"]).0, Some(0));
    assert_eq!(run(&["print", "2", "a", "b"]), (Some(0), "1 a b\n2 a b\n".into()));
    assert_eq!(run(&["append", &file, "x"]).0, Some(0));
    assert_eq!(run(&["append", &file, "y"]).0, Some(0));
    assert_eq!(run(&["cat", &file]), (Some(0), "x\ny\n".into()));
    assert_eq!(run(&["write", &file, "z"]).0, Some(0));
    assert_eq!(run(&["cat", &file]).1, "z\n");
    assert_eq!(run(&["cat", "/no/such/file"]).0, Some(125));
    assert_eq!(run(&["nonsense"]).0, Some(125));
    assert_eq!(run(&["raise", "9"]).0, None);
    assert_eq!(run(&["resolve", "127.0.0.1"]).1, "127.0.0.1\n");
    assert_eq!(run(&["crash-once", &dir.path().join("once").display().to_string()]).0, Some(17));
    let probe: serde_json::Value = serde_json::from_str(&run(&["probe"]).1).expect("a probe is JSON");
    for key in ["status", "mounts", "fds", "identity", "hosts", "resolvConf", "limits", "sysctls", "dev", "addresses"] {
        assert!(!probe[key].is_null(), "{key} in {probe:#}");
    }
    assert_eq!(probe["identity"]["uid"], nix::unistd::getuid().as_raw());
}

#[test]
fn term_is_obeyed_or_ignored() {
    for (arguments, obeys) in [(&["sleep", "forever"][..], true), (&["ignore-term"], false)] {
        let (mut child, _lines, _) = started(arguments);
        term(&child);
        let ended = poll("the end", Duration::from_millis(if obeys { 5000 } else { 100 }), || {
            child.try_wait().expect("the child is ours")
        });
        assert_eq!(ended.is_ok(), obeys, "{arguments:?}");
        drop(child.kill());
        drop(child.wait());
    }
}

#[test]
fn echoes_answer() {
    let port = free_port();
    let (mut tcp, _lines, _) = started(&["tcp-echo", &port.to_string()]);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.write_all(b"ping\n").expect("the connection stays");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it echoes");
    assert_eq!(line, "ping\n");
    let (mut udp, _lines, _) = started(&["udp-echo", &port.to_string()]);
    let sent = fixture(&["udp", "127.0.0.1", &port.to_string(), "pong"]).output().expect("the fixture was built");
    assert!(String::from_utf8_lossy(&sent.stdout).trim_end().ends_with(": pong"), "{sent:?}");
    for child in [&mut tcp, &mut udp] {
        term(child);
        assert_eq!(child.wait().expect("the child is ours").code(), Some(0));
    }
}
