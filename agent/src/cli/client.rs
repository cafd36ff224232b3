//! Asks the agent over its socket: HTTP/1.0, blocking, one connection a question. Commands of people need no more,
//! and start within a millisecond this way.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::CliError;
use crate::api::ErrorBody;

/// Headers beyond this are no answer of ours.
const MAX_HEAD: u64 = 64 << 10;

/// One who asks the agent.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    /// How long nothing may come; without one it is waited for ever, as behind a socket of systemd that nobody serves.
    limit: Option<Duration>,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, limit: None }
    }

    /// The same, for an answer before this moment; an agent that is there has a second at least.
    pub(super) fn until(&self, deadline: Instant) -> Self {
        let limit = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        Self { limit: Some(limit), ..self.clone() }
    }

    /// A value that the agent has.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.value("GET", path, None)
    }

    /// Something that the agent is to do.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.value("POST", path, Some(body))
    }

    fn value<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<&Value>) -> Result<T, CliError> {
        let answer = self.request(method, path, body)?;
        if answer.status != 200 {
            return Err(self.refused(&answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            CliError::new("cannot understand the agent's answer")
                .place(format!("{} {path}", self.socket.display()))
                .cause(error)
                .hint("the agent and this command are of different versions: restart the agent")
        })
    }

    fn refused(&self, answer: &Answer) -> CliError {
        match serde_json::from_slice::<ErrorBody>(&answer.body) {
            Ok(ErrorBody { error }) => CliError { hint: error.hint, ..CliError::new(error.message) },
            Err(_) => CliError::new(format!("the agent answered with status {}", answer.status))
                .place(self.socket.display().to_string()),
        }
    }

    /// An answer with whatever status.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, CliError> {
        let mut reader = self.send(method, path, body)?;
        let (status, length) = self.head(&mut reader)?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body).map_err(|error| self.broken(error))?;
        match length {
            Some(length) if length != body.len() as u64 => Err(self.broken(ErrorKind::UnexpectedEof.into())),
            Some(_) | None => Ok(Answer { status, body }),
        }
    }

    /// Lines of an answer as they come, until it ends or `each` returns false.
    pub(crate) fn lines(&self, path: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), CliError> {
        let mut reader = self.send("GET", path, None)?;
        let (status, _) = self.head(&mut reader)?;
        if status != 200 {
            let mut body = Vec::new();
            reader.read_to_end(&mut body).map_err(|error| self.broken(error))?;
            return Err(self.refused(&Answer { status, body }));
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                // A line without its end was cut off with the connection.
                Ok(_) if line.last() != Some(&b'\n') => return Ok(()),
                Ok(_) if each(&line) => {}
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<BufReader<UnixStream>, CliError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| unreachable(&self.socket, &error))?;
        stream.set_read_timeout(self.limit).map_err(|error| self.broken(error))?;
        stream.set_write_timeout(self.limit).map_err(|error| self.broken(error))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(|error| self.broken(error))?;
        Ok(BufReader::new(stream))
    }

    /// Status and length of an answer.
    fn head(&self, reader: &mut BufReader<UnixStream>) -> Result<(u16, Option<u64>), CliError> {
        let odd = || self.broken(std::io::Error::new(ErrorKind::InvalidData, "it does not speak HTTP"));
        let mut head = reader.take(MAX_HEAD);
        let mut line = String::new();
        head.read_line(&mut line).map_err(|error| self.broken(error))?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(odd)?;
        let mut length = None;
        loop {
            line.clear();
            head.read_line(&mut line).map_err(|error| self.broken(error))?;
            match line.trim_end() {
                "" if line.is_empty() => return Err(odd()),
                "" => return Ok((status, length)),
                header => {
                    if let Some((name, value)) = header.split_once(':')
                        && name.eq_ignore_ascii_case("content-length")
                    {
                        length = value.trim().parse().ok();
                    }
                }
            }
        }
    }

    /// Whether the agent is there for others only.
    pub(super) fn is_denied(&self) -> bool {
        UnixStream::connect(&self.socket).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    fn broken(&self, error: std::io::Error) -> CliError {
        let told = CliError::new("cannot talk to the agent").place(self.socket.display().to_string());
        match error.kind() {
            ErrorKind::WouldBlock => told.cause("it did not answer in time"),
            _ => told.cause(error),
        }
    }
}

fn nobody_listens(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> CliError {
    let place = socket.display().to_string();
    match error.kind() {
        _ if nobody_listens(error) => CliError::new("the agent is not running")
            .place(place)
            .cause(if error.kind() == ErrorKind::NotFound {
                "there is no such socket"
            } else {
                "nobody answers on the socket: the agent has ended without removing it"
            })
            .hint("start it with `mainstay run DIR` or `systemctl start mainstay`; is --run-dir the agent's?"),
        ErrorKind::PermissionDenied => CliError::new("cannot talk to the agent")
            .place(place)
            .cause("the socket is for root only")
            .hint("run the command as root, such as with sudo"),
        _ => CliError::new("cannot talk to the agent").place(place).cause(error),
    }
}
