//! As much HTTP/1.1 as tests need, on std sockets: a client with a time limit, over TCP and Unix sockets, and the
//! reading of heads that client and registry share.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a client waits for each read.
const PATIENCE: Duration = Duration::from_secs(10);

/// First line and headers of a request or an answer.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The request line or status line.
    pub first: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Reads one head; `None` at the end of the connection.
    ///
    /// # Errors
    /// When reading fails or the connection ends within a head.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = Self::default();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return if head.first.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let line = line.trim_end();
            if line.is_empty() && !head.first.is_empty() {
                return Ok(Some(head));
            } else if head.first.is_empty() {
                head.first = line.to_owned();
            } else if let Some((name, value)) = line.split_once(':') {
                head.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.header("content-length").and_then(|value| value.parse().ok())
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Status line and headers.
    pub head: Head,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GET over TCP on a connection of its own.
///
/// # Errors
/// When connecting, sending or reading fails or takes too long.
pub fn get(address: impl ToSocketAddrs, path: &str) -> io::Result<Response> {
    get_with(address, path, &[])
}

/// GET with more headers.
///
/// # Errors
/// As [`get`].
pub fn get_with(address: impl ToSocketAddrs, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
    request(address, "GET", path, headers, b"")
}

/// POST with more headers.
///
/// # Errors
/// As [`get`].
pub fn post(address: impl ToSocketAddrs, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
    request(address, "POST", path, headers, body)
}

fn request(
    address: impl ToSocketAddrs,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return exchange(stream, method, path, headers, body);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A request over a Unix socket.
///
/// # Errors
/// As [`get`].
pub fn unix(socket: &Path, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, method, path, &[], body)
}

fn exchange<S: Read + Write>(
    mut stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    read_response(&mut BufReader::new(stream))
}

/// Reads an answer with its body, by length, in chunks or up to the end.
///
/// # Errors
/// When reading fails or the body is shorter than promised.
pub fn read_response(reader: &mut impl BufRead) -> io::Result<Response> {
    let head = Head::read(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.first.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = Vec::new();
    if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
            reader.by_ref().take(size).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = head.length() {
        reader.by_ref().take(length).read_to_end(&mut body)?;
        if (body.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Response { status, head, body })
}
