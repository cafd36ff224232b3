//! A Git repository on this host, and a server for it: `git http-backend` behind a listener on loopback.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::Head;

/// A bare repository, as a server has it, and the clone that somebody works in.
#[derive(Debug)]
pub struct Repository {
    bare: PathBuf,
    work: PathBuf,
}

impl Repository {
    /// An empty one in a directory of its own.
    pub fn new(bare: PathBuf) -> Self {
        let work = bare.with_extension("work");
        for dir in [&bare, &work] {
            std::fs::create_dir_all(dir).expect("the temporary directory is ours");
        }
        let repository = Self { bare, work };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.git(&["init", "--quiet", "--initial-branch=main", "--bare", &repository.bare.to_string_lossy()]);
        repository
    }

    /// The bare repository.
    pub fn dir(&self) -> &Path {
        &self.bare
    }

    /// The work tree of the clone.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Runs git in the clone; what it printed. Nobody else sees of it before [`Self::push`].
    ///
    /// # Panics
    /// When git fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "gpg.format=ssh"])
            .args(arguments)
            .current_dir(&self.work)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Lets the bare repository have all branches and tags of the clone, and no others.
    pub fn push(&self) {
        self.git(&["push", "--quiet", "--mirror", &self.bare.to_string_lossy()]);
    }

    /// Writes a file, commits and pushes; the commit. `sign` names a private key.
    pub fn commit(&self, file: &str, content: &str, sign: Option<&Path>) -> String {
        let path = self.work.join(file);
        std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("the directory is ours");
        std::fs::write(path, content).expect("the directory is ours");
        self.git(&["add", "--all"]);
        match sign {
            Some(key) => {
                let key = format!("user.signingkey={}", key.display());
                self.git(&["-c", &key, "commit", "--quiet", "--message", "change", "--gpg-sign"])
            }
            None => self.git(&["commit", "--quiet", "--message", "change"]),
        };
        self.push();
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A new key to sign with: the private key, and a file that allows it.
pub fn signer(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let key = dir.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.expect("ssh-keygen is installed").success());
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote it");
    let allowed = dir.join(format!("{name}.allowed"));
    std::fs::write(&allowed, format!("test@example.org {public}")).expect("the directory is ours");
    (key, allowed)
}

/// Serves the repositories below a directory over http, to those who know the password.
#[derive(Debug)]
pub struct GitServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    refused: Arc<Mutex<u32>>,
}

impl GitServer {
    /// Starts one on a free port.
    pub fn start(root: PathBuf, password: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = listener.local_addr().expect("it is bound");
        let stopping = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(Mutex::new(0));
        let (stop, count) = (Arc::clone(&stopping), Arc::clone(&refused));
        let login = format!("Basic {}", STANDARD.encode(format!("git:{password}")));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (root, login, count) = (root.clone(), login.clone(), Arc::clone(&count));
                // A client that goes away in the middle is no fault of the server.
                std::thread::spawn(move || drop(answer(stream, &root, &login, &count)));
            }
        });
        Self { address, stopping, refused }
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// How many requests came without the right password.
    pub fn refused(&self) -> u32 {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener; when that fails it is gone already.
        drop(TcpStream::connect(self.address));
    }
}

/// One request: git's own CGI program answers it.
fn answer(mut stream: TcpStream, root: &Path, login: &str, refused: &Mutex<u32>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
    if head.header("authorization") != Some(login) {
        *refused.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(answer.as_bytes());
    }
    let mut words = head.first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length: u64 = head.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_LENGTH", length.to_string())
        .env("CONTENT_TYPE", head.header("content-type").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", head.header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", head.header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = backend.stdin.take() {
        stdin.write_all(&body)?;
    }
    let output = backend.wait_with_output()?.stdout;
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let (headers, content) = output.split_at(split);
    let headers = String::from_utf8_lossy(headers);
    let status = headers.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let kept: String =
        headers.lines().filter(|line| !line.starts_with("Status:")).map(|line| format!("{line}\r\n")).collect();
    let content = content.get(4..).unwrap_or_default();
    write!(stream, "HTTP/1.1 {status}\r\n{kept}Content-Length: {}\r\nConnection: close\r\n\r\n", content.len())?;
    stream.write_all(content)
}
