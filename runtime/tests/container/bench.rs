//! Figures for people, never asserted: `container bench [ROUNDS]` beside `runc` when that is installed.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fixture::Fixture;

fn median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    format!("median {:.1?} (min {:.1?}, max {:.1?})", at(times.len() / 2), at(0), at(times.len().saturating_sub(1)))
}

/// Kilobytes of a field of /proc/PID/smaps_rollup.
fn smaps(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

pub(crate) fn run(rounds: usize) {
    let fixture = Fixture::new("bench", None);
    let (mut starts, mut runcs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let config = fixture.config("true");
        let begin = Instant::now();
        fixture.start(&config).expect("started");
        starts.push(begin.elapsed());
        fixture.wait(&config);
        runcs.extend(runc(&fixture, &config.id));
        std::thread::sleep(Duration::from_millis(300));
    }
    println!("start() returns: {}", median(starts));
    println!("runc run -d:     {}", median(runcs));
    // Less moved by whatever else the machine does. Ours with the whole life of shim and container, without the
    // first process; runc without its container.
    let usage = format!("/sys/fs/cgroup/cpuacct{}/cpuacct.usage", fixture.cgroup);
    let nanos: u64 = fs::read_to_string(usage).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let spent = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("readings");
    let millis = |time: nix::sys::time::TimeVal| time.tv_sec() * 1000 + time.tv_usec() / 1000;
    let children = millis(spent.user_time()) + millis(spent.system_time());
    println!(
        "CPU a container: ours {} us, runc and first processes {} us",
        nanos / 1000 / rounds as u64,
        children * 1000 / rounds as i64
    );

    let begin = Instant::now();
    let running: Vec<_> = (0..20)
        .map(|_| {
            let config = fixture.config("sleep 1000");
            let running = fixture.start(&config).expect("started");
            (config, running)
        })
        .collect();
    println!("20 starts in a row: {:.1?}", begin.elapsed());
    std::thread::sleep(Duration::from_millis(300));
    for key in ["Rss", "Pss", "Pss_Anon", "Private_Dirty"] {
        let all: u64 = running.iter().map(|(_, running)| smaps(running.shim_pid, key)).sum();
        println!("{key}: {} kB a shim", all / 20);
    }
    for (config, _) in &running {
        fixture.kill(config);
    }
    fixture.assert_nothing_left();
}

/// The same root under runc, from the command to its return with the program started.
fn runc(fixture: &Fixture, id: &str) -> Option<Duration> {
    let bundle = fixture.dir.join("runc");
    fs::create_dir_all(&bundle).ok()?;
    if !bundle.join("config.json").exists() {
        let made = Command::new("runc").arg("spec").current_dir(&bundle).status().ok()?;
        assert!(made.success());
        let text = fs::read_to_string(bundle.join("config.json")).ok()?;
        let mut spec: serde_json::Value = serde_json::from_str(&text).ok()?;
        spec["root"]["path"] = serde_json::json!(fixture.layer());
        spec["process"]["terminal"] = serde_json::json!(false);
        spec["process"]["args"] = serde_json::json!(["/bin/true"]);
        spec["process"]["rlimits"] = serde_json::json!([]);
        fs::write(bundle.join("config.json"), spec.to_string()).ok()?;
    }
    let name = format!("bench-{}-{id}", std::process::id());
    let begin = Instant::now();
    let status = Command::new("runc")
        .args(["run", "-d", "--bundle"])
        .arg(&bundle)
        .arg(&name)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .ok()?;
    let took = begin.elapsed();
    let _ = Command::new("runc").args(["delete", "-f", &name]).status();
    status.success().then_some(took)
}
