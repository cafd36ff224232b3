//! An HTTP server on loopback that answers as a test says and keeps what it was asked.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::Head;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its first line and headers.
    pub head: Head,
    /// Its body.
    pub body: String,
}

type Answer = dyn Fn(&Request) -> (u16, Vec<u8>) + Send + Sync;

/// A server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    // Held to add and to copy.
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts one on a free port, in the network namespace of this thread.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub fn start(answer: impl Fn(&Request) -> (u16, Vec<u8>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = listener.local_addr().expect("it is bound");
        let (stopping, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stop, log, answer) = (Arc::clone(&stopping), Arc::clone(&seen), Arc::new(answer) as Arc<Answer>);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), log, answer) = (stream, Arc::clone(&log), Arc::clone(&answer)) else { continue };
                // A client that goes away in the middle is no fault of the server.
                std::thread::spawn(move || drop(converse(stream, &log, &*answer)));
            }
        });
        Self { address, stopping, seen }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener; when that fails it is gone already.
        drop(TcpStream::connect(self.address));
    }
}

fn converse(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
    let length: u64 = head.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let request = Request { head, body: String::from_utf8_lossy(&body).into_owned() };
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    let (status, body) = answer(&request);
    write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}
