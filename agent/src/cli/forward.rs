//! `mainstay port-forward`: ports of this host's loopback that lead to ports of a pod, also to those that the pod serves
//! on its own loopback only. Nothing is published; it ends with the command.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exec::{layout, running};
use super::output::{CliError, Io, Outcome};
use crate::config::Settings;

/// Longest wait for a pod to take a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// `LOCAL:REMOTE`, or one number for both; local 0 or nothing before the colon is any free port.
fn parse(text: &str) -> Result<(u16, u16), CliError> {
    let wrong = || CliError::new(format!("`{text}` names no ports")).hint("write LOCAL:REMOTE, such as 8080:80");
    let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (local, remote) = match text.split_once(':') {
        Some(("", remote)) => (0, port(remote)?),
        Some((local, remote)) => (port(local)?, port(remote)?),
        None => (port(text)?, port(text)?),
    };
    if remote == 0 { Err(wrong()) } else { Ok((local, remote)) }
}

pub(super) fn forward(
    settings: &Settings,
    name: &str,
    ports: &[String],
    address: Option<IpAddr>,
    io: &mut Io<'_>,
) -> Outcome {
    let container = running(settings, name, io)?;
    // Without a namespace of its own the pod is on the host's network.
    let netns = layout(settings).namespaces(&container.uid).join("net");
    let netns = if netns.exists() { netns } else { PathBuf::from("/proc/self/ns/net") };
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut listeners = Vec::new();
    for text in ports {
        let (local, remote) = parse(text)?;
        let at = SocketAddr::new(address, local);
        let listener = TcpListener::bind(at).map_err(|error| {
            CliError::new(format!("cannot listen on {at}")).cause(error).hint("choose another port")
        })?;
        let at = listener.local_addr().unwrap_or(at);
        writeln!(io.out, "{at} -> {}:{remote}", container.pod)?;
        listeners.push((listener, remote));
    }
    io.out.flush()?;
    std::thread::scope(|scope| {
        for (listener, remote) in &listeners {
            let netns = netns.as_path();
            scope.spawn(move || {
                for stream in listener.incoming().flatten() {
                    let netns = netns.to_owned();
                    let remote = *remote;
                    // Ends with its connection, or with the command.
                    drop(std::thread::Builder::new().spawn(move || serve(&stream, &netns, remote)));
                }
            });
        }
    });
    Ok(0)
}

/// Copies both ways until both ends are done.
fn serve(local: &TcpStream, netns: &Path, port: u16) {
    let inside = match runtime::network::connect_inside(netns, port, PATIENCE) {
        Ok(inside) => inside,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "port {port} of the pod: {error}"));
            return;
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pipe(local, &inside));
        pipe(&inside, local);
    });
}

fn pipe(mut from: &TcpStream, mut to: &TcpStream) {
    // However it ended: the other side learns that nothing more comes.
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_pairs_or_one_number() {
        for (text, ports) in [
            ("8080:80", Some((8080, 80))),
            ("80", Some((80, 80))),
            (":80", Some((0, 80))),
            ("0:80", Some((0, 80))),
            ("80:", None),
            ("x", None),
            ("1:0", None),
            ("70000:80", None),
        ] {
            assert_eq!(parse(text).ok(), ports, "{text}");
        }
    }
}
