//! The `docker-credential-*` protocol: the server's name on standard input, a JSON login on standard output.
//!
//! Source: docker/docker-credential-helpers, README.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use spec::secret::SecretBytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Login;

/// A helper that asks a person or a dead service must not hold a pull.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// A login is a few kilobytes.
const MAX_OUTPUT: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The name by which helpers know a registry; Docker Hub goes by its old address.
pub(super) fn server_name(registry: &str) -> &str {
    if super::canonical(registry) == spec::image_ref::DEFAULT_REGISTRY {
        "https://index.docker.io/v1/"
    } else {
        registry
    }
}

/// Asks a helper; `None` when it has no login for this server. The error is for people and holds no secret.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Login>, String> {
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err("the name of its credential helper is not valid".to_owned());
    }
    let program = format!("docker-credential-{name}");
    match tokio::time::timeout(TIME_LIMIT, run(&program, server)).await {
        Ok(result) => result.map_err(|error| format!("{program} failed: {error}")),
        Err(_) => Err(format!("{program} gave no answer within {}s", TIME_LIMIT.as_secs())),
    }
}

async fn run(program: &str, server: &str) -> Result<Option<Login>, String> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input answers all the same.
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_OUTPUT).read_to_end(&mut output).await.map_err(|error| error.to_string())?;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if !status.success() {
        let text = String::from_utf8_lossy(&output);
        // The one message of the protocol that means "no login", not "broken".
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("{status}: {}", crate::image::registry::clean(&text, 120)));
    }
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| "its answer is not valid".to_owned())?;
    let secret = SecretBytes::new(answer.secret.into_bytes());
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::Identity(secret),
        _ => Login::Basic(answer.username, secret),
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What a helper with this script answers.
    async fn check(script: &str, expected: &str) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("helper");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the helper is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it may run");
        // Another thread that forks just now holds the file open for writing for a moment (ETXTBSY).
        let mut found = run(&path.display().to_string(), "r.io").await;
        while matches!(&found, Err(reason) if reason.contains("busy")) {
            found = run(&path.display().to_string(), "r.io").await;
        }
        let found = match found {
            Ok(Some(Login::Basic(user, password))) => format!("{user}:{}", String::from_utf8_lossy(password.expose())),
            Ok(Some(Login::Identity(_))) => "identity".to_owned(),
            Ok(Some(Login::Bearer(_))) => "bearer".to_owned(),
            Ok(None) => "none".to_owned(),
            Err(reason) => reason,
        };
        assert!(found.contains(expected), "{script}: {found}");
    }

    #[tokio::test]
    async fn helpers_are_spoken_to() {
        for (script, expected) in [
            (r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$1@$s\",\"Secret\":\"p\"}""#, "get@r.io:p"),
            (r#"echo '{"Username":"<token>","Secret":"t"}'"#, "identity"),
            ("echo credentials not found in native keychain; exit 1", "none"),
            (r"printf 'locked \033[31m'; exit 1", "locked [31m"),
            ("echo '{}'", "its answer is not valid"),
            ("exec yes", "signal: 13"),
            ("kill -9 $$", "signal: 9"),
        ] {
            check(script, expected).await;
        }
    }

    #[tokio::test]
    async fn names_with_paths_are_refused() {
        assert!(get("../../bin/sh", "r.io").await.is_err());
    }
}
