use spec::secret::SecretBytes;

use super::*;
use crate::api::RegistryAuth;

/// The logins that a `config.json` gives for a registry and repository, as text.
async fn check(config: &str, registry: &str, repository: &str, expected: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.json");
    std::fs::write(&path, config).expect("the file is written");
    let found = CredentialFiles::new(vec![path]).find(&Vec::new(), registry, repository).await;
    assert_eq!(show(&found.logins), expected, "{config} for {registry}/{repository}: {:?}", found.looked);
}

fn show(logins: &[Login]) -> String {
    let text = |secret: &SecretBytes| String::from_utf8_lossy(secret.expose()).into_owned();
    let all: Vec<_> = logins
        .iter()
        .map(|login| match login {
            Login::Basic(user, password) => format!("{user}:{}", text(password)),
            Login::Identity(token) => format!("identity {}", text(token)),
            Login::Bearer(token) => format!("bearer {}", text(token)),
        })
        .collect();
    all.join(", ")
}

#[tokio::test]
async fn logins_are_found_in_files() {
    let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="}}}"#;
    let paths = r#"{"auths":{"r.io":{"auth":"YTox"},"r.io/team":{"auth":"Yjoy"},"r.io/team/app":{"auth":"Yzoz"}}}"#;
    for (config, registry, repository, expected) in [
        (hub, "docker.io", "library/nginx", "u:p:q"),
        (hub, "ghcr.io", "a/b", ""),
        (paths, "r.io", "x", "a:1"),
        (paths, "r.io", "team/x", "b:2"),
        (paths, "r.io", "team/app", "c:3"),
        (paths, "r.io", "team/apple", "b:2"),
        (paths, "r.io", "teams/app", "a:1"),
        (r#"{"auths":{"r.io:5000":{"username":"u","password":"p"}}}"#, "r.io:5000", "a", "u:p"),
        (r#"{"auths":{"r.io:5000":{"username":"u","password":"p"}}}"#, "r.io", "a", ""),
        (r#"{"auths":{"r.io:443":{"username":"u","password":"p"}}}"#, "r.io", "a", "u:p"),
        (r#"{"auths":{"http://r.io/v2/":{"username":"u","password":"p"}}}"#, "r.io", "a", "u:p"),
        (r#"{"auths":{"r.io":{"auth":"dTpw","identitytoken":"t"}}}"#, "r.io", "a", "identity t"),
        (r#"{"auths":{"r.io":{"registrytoken":"t"}}}"#, "r.io", "a", "bearer t"),
        (r#"{"auths":{"r.io":{}}}"#, "r.io", "a", ""),
        (r#"{"auths":{"r.io":{"auth":"!!"}}}"#, "r.io", "a", ""),
        (r#"{"auths":{"r.io":{"auth":"bm9jb2xvbg=="}}}"#, "r.io", "a", ""),
        (r#"{"auths":{"r.io":7}}"#, "r.io", "a", ""),
        (r#"{"auths":7}"#, "r.io", "a", ""),
        ("{", "r.io", "a", ""),
        ("", "r.io", "a", ""),
        (r#"{"credsStore":"no-such-helper-x","auths":{"r.io":{"auth":"dTpw"}}}"#, "r.io", "a", "u:p"),
        (r#"{"credHelpers":{"r.io":"../../bin/sh"}}"#, "r.io", "a", ""),
    ] {
        check(config, registry, repository, expected).await;
    }
}

#[tokio::test]
async fn pull_secrets_come_first_and_the_longest_key_before_them() {
    let secret = |key: &str, user: &str| {
        let auth = RegistryAuth::Basic(user.to_owned(), SecretBytes::new(b"p".to_vec()));
        (key.to_owned(), auth)
    };
    let secrets = vec![
        secret("other.io", "no"),
        secret("*.r.io", "wild"),
        secret("https://eu.r.io", "host"),
        secret("eu.r.io/team", "team"),
        secret("eu.r.io", "host"),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.json");
    std::fs::write(&path, r#"{"auths":{"eu.r.io":{"auth":"ZmlsZTpw"}}}"#).expect("the file is written");
    let files = CredentialFiles::new(vec![path]);
    let found = files.find(&secrets, "eu.r.io", "team/app").await;
    assert_eq!(show(&found.logins), "team:p, host:p, wild:p, file:p");
    let found = files.find(&secrets, "us.r.io", "team/app").await;
    assert_eq!(show(&found.logins), "wild:p");
    let found = files.find(&secrets, "a.us.r.io", "team/app").await;
    assert_eq!(show(&found.logins), "");
}

#[test]
fn logins_are_looked_for_where_others_put_them() {
    let own = ["/etc/mainstay/auth.json", "/run/containers/0/auth.json"];
    let root = ["/root/.config/containers/auth.json", "/root/.docker/config.json"];
    for (variables, first, middle) in [
        (vec![], vec![], vec![]),
        (vec![("HOME", "/root")], vec![], vec![]),
        (
            vec![("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("REGISTRY_AUTH_FILE", "/a.json")],
            vec![
                "/a.json",
                "/etc/mainstay/auth.json",
                "/run/user/7/containers/auth.json",
                "/run/containers/0/auth.json",
            ],
            vec!["/home/a/.config/containers/auth.json", "/home/a/.docker/config.json"],
        ),
        (
            vec![("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d"), ("CREDENTIALS_DIRECTORY", "/s")],
            vec!["/d/config.json", "/s/registry-auth", "/etc/mainstay/auth.json", "/run/containers/0/auth.json"],
            vec!["/c/containers/auth.json"],
        ),
    ] {
        let first = if first.is_empty() { own.to_vec() } else { first };
        let expected: Vec<PathBuf> = first.iter().chain(&middle).chain(&root).map(PathBuf::from).collect();
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value));
        assert_eq!(places(of), expected, "{variables:?}");
    }
}
