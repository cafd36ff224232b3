//! Children of the program that this process was before it executed itself.

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// Takes the ends of children that are there when the agent starts: helpers that the agent before had started and
/// nobody else waits for. Shims are none of them, they fork away.
///
/// Called before any thread exists, so that every child belongs to this one.
pub fn reap() {
    let Ok(text) = std::fs::read_to_string("/proc/thread-self/children") else { return };
    let children: Vec<Pid> =
        text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect();
    if children.is_empty() {
        return;
    }
    // One after the other: they end within seconds, and in whichever order, none is left when this is done.
    let waiting = std::thread::Builder::new().name("inherited".to_owned()).spawn(move || {
        for child in children {
            // Not ours any more is as good as ended.
            let _ = waitpid(child, None);
        }
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "ended helpers stay until the agent ends");
    }
}
