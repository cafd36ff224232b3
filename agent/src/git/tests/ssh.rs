//! What ssh is told, as it understands it, and a real server of it where there is one.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use super::*;

/// `ssh -G` says which options are in force.
#[test]
fn ssh_asks_nobody_and_believes_the_named_file_only() {
    let remote = Remote::new();
    let key = key(remote.dir.path(), "it's a key");
    let source = GitSource {
        url: "git@host:fleet.git".to_owned(),
        ssh_key_file: Some(key.clone()),
        known_hosts_file: Some("/k/known hosts".into()),
        ..remote.source(None, None)
    };
    let home = remote.home();
    let command = super::super::command::Git::new(&source, &home, super::super::command::Limits::default());
    let line = command.ssh().expect("the key is private");
    let output = Command::new("sh").arg("-c").arg(format!("{line} -G host")).output().expect("there is a shell");
    let told = String::from_utf8_lossy(&output.stdout);
    for option in [
        "batchmode yes",
        "stricthostkeychecking true",
        "userknownhostsfile /k/known hosts",
        "globalknownhostsfile /dev/null",
        "identitiesonly yes",
        &format!("identityfile {}", key.display()),
        "serveraliveinterval 15",
        "connecttimeout 30",
    ] {
        assert!(told.lines().any(|line| line == option), "{option}: {told}\n{line}");
    }
}

/// An sshd on loopback for this user; it ends when dropped.
struct Sshd {
    child: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn key(dir: &Path, name: &str) -> PathBuf {
    let key = dir.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.expect("ssh-keygen is installed").success());
    key
}

fn public(key: &Path) -> String {
    let text = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

impl Sshd {
    fn start(program: &Path, dir: &Path, host_key: &Path, user: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        std::fs::write(dir.join("authorized"), public(user) + "\n").expect("a file");
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin yes\nSetEnv PATH={}\n",
            host_key.display(),
            dir.join("authorized").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        std::fs::write(dir.join("sshd_config"), config).expect("a file");
        let log = std::fs::File::create(dir.join("sshd.log")).expect("a file");
        // Its service makes this directory; where that has never run it is missing.
        drop(std::fs::create_dir("/run/sshd"));
        let mut sshd = Command::new(program);
        sshd.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stdin(Stdio::null()).stderr(log);
        let server = Self { child: sshd.spawn().expect("it is installed"), port };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = std::fs::read_to_string(dir.join("sshd.log")).unwrap_or_default();
            assert!(std::time::Instant::now() < deadline, "sshd does not answer: {said}");
            std::thread::yield_now();
        }
        server
    }
}

#[tokio::test]
async fn a_host_that_is_not_the_known_one_gets_nothing() {
    let programs = ["/usr/sbin/sshd", "/usr/bin/sshd"].map(PathBuf::from);
    let named = std::env::var_os("MAINSTAY_TEST_SSHD").map(PathBuf::from);
    let Some(program) = named.into_iter().chain(programs).find(|path| path.exists()) else {
        let line = "skipped: a_host_that_is_not_the_known_one_gets_nothing: no sshd\n";
        drop(std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes()));
        return;
    };
    let remote = Remote::new();
    let dir = remote.dir.path().to_owned();
    let (host, user, stranger) = (key(&dir, "host"), key(&dir, "user"), key(&dir, "stranger"));
    let server = Sshd::start(&program, &dir, &host, &user);
    let known_hosts = dir.join("known_hosts");
    let place = format!("[127.0.0.1]:{}", server.port);
    let source = GitSource {
        url: format!("ssh://root@127.0.0.1:{}{}", server.port, remote.work().display()),
        ssh_key_file: Some(user.clone()),
        known_hosts_file: Some(known_hosts.clone()),
        ..remote.source(Some("main"), Some("hosts/web"))
    };
    let refused = async |why: &str, want: &str| {
        let error = spec::causes::chain(&follow(&remote, &source).await.expect_err(why));
        assert!(error.contains(want), "{why}: {error}");
        assert_eq!(remote.current("a.yaml"), None, "{why}");
    };
    std::fs::write(&known_hosts, "").expect("a file");
    refused("the host is not known", "Host key verification failed").await;
    std::fs::write(&known_hosts, format!("{place} {}\n", public(&stranger))).expect("a file");
    refused("the host has another key", "Host key verification failed").await;
    std::fs::write(&known_hosts, format!("{place} {}\n", public(&host))).expect("a file");
    std::fs::set_permissions(&user, std::fs::Permissions::from_mode(0o640)).expect("it is ours");
    refused("the key is open", "is open to others (mode 0640").await;
    std::fs::set_permissions(&user, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    follow(&remote, &source).await.expect("the host is the known one");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
    let other = GitSource { ssh_key_file: Some(stranger), ..source };
    let error = spec::causes::chain(&follow(&remote, &other).await.expect_err("a stranger"));
    assert!(error.contains("Permission denied"), "{error}");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
}
