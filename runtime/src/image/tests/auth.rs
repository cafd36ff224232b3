//! Logins: which are used, in which order, and where they never go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spec::secret::SecretBytes;

use super::fake::{Reply, Request, Server, TestImage, http};
use super::{patient, quick, reference, rig, root};
use crate::api::{PullCredentials, RegistryAuth};
use crate::image::registry::RegistryConfig;

fn secret(key: &str, user: &str, password: &str) -> (String, RegistryAuth) {
    let password = SecretBytes::new(password.as_bytes().to_vec());
    (key.to_owned(), RegistryAuth::Basic(user.to_owned(), password))
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// A registry that wants a token from this realm; `valid` says whether a token is.
fn wants_token(realm: String, valid: impl Fn(&Request, &str) -> bool + Send + Sync + 'static) -> (Server, TestImage) {
    let image = TestImage::usual();
    let served = image.clone();
    let challenge = format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:team/app:pull\"");
    let server = Server::start(move |request| {
        match request.header("authorization").strip_prefix("Bearer ").is_some_and(|token| valid(request, token)) {
            true => served.answer(request),
            false => http(
                401,
                &[("www-authenticate", &challenge)],
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}"#,
            ),
        }
    });
    (server, image)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_tokens_are_fetched_once() {
    if !root() {
        return;
    }
    let tokens = Server::start(|_| http(200, &[], r#"{"token":"t1","expires_in":300}"#));
    let (server, image) = wants_token(format!("http://{}/token", tokens.address), |_, token| token == "t1");
    let rig = rig(patient());
    let name = reference(&server, "team/app");
    assert_eq!(rig.pull(&name, &Vec::new()).await.expect("it is pulled").digest, image.digest());
    rig.pull(&name, &Vec::new()).await.expect("it is there");
    let asked: Vec<_> = tokens.requests().iter().map(|r| format!("{} {}", r.method, r.target)).collect();
    assert_eq!(asked, ["GET /token?service=the+registry&scope=repository%3Ateam%2Fapp%3Apull"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_runs_out_is_renewed_in_mid_pull() {
    if !root() {
        return;
    }
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    let tokens = Server::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        http(200, &[], format!(r#"{{"access_token":"t{number}","expires_in":"300"}}"#))
    });
    // The first token is good for manifests only.
    let (server, image) = wants_token(format!("http://{}/token", tokens.address), |request, token| {
        token != "t0" || request.is_manifest()
    });
    let rig = rig(patient());
    let pulled = rig.pull(&reference(&server, "team/app"), &Vec::new()).await.expect("it is pulled");
    assert_eq!(pulled.digest, image.digest());
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_logins_are_tried_in_order() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let served = image.clone();
    let server = Server::start(move |request| match request.header("authorization") == basic("u", "right") {
        true => served.answer(request),
        false => http(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    });
    let rig = rig(patient());
    let host = server.address.to_string();
    let name = reference(&server, "team/app");
    let secrets = vec![
        secret("other.io", "x", "elsewhere"),
        secret(&host, "u", "wrong"),
        secret(&format!("http://{host}/v2/"), "u", "right"),
    ];
    assert_eq!(rig.pull(&name, &secrets).await.expect("it is pulled").digest, image.digest());
    let sent: Vec<_> = server.requests().iter().map(|r| r.header("authorization").to_owned()).collect();
    assert_eq!(sent.first().map(String::as_str), Some(""));
    assert!(sent.iter().all(|header| *header != basic("x", "elsewhere")));
    let fresh = super::rig(patient());
    for (secrets, expected) in [
        (vec![], "imagePullSecrets (none given)"),
        (vec![secret("other.io", "x", "elsewhere")], "imagePullSecrets (0 of 1 for this registry)"),
        (vec![secret(&host, "u", "wrong")], "imagePullSecrets (1 of 1 for this registry)"),
    ] {
        let error = fresh.refused(&name, &secrets).await;
        assert!(error.contains("wrong or missing credentials") && error.contains(expected), "{error}");
        assert!(!error.contains("elsewhere") && error.contains(&host), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_service_gets_the_login_and_nobody_else() {
    if !root() {
        return;
    }
    let get = basic("u", "p");
    let tokens = Server::start(move |request| match request.header("authorization") == get {
        true => http(200, &[], r#"{"token":"t1"}"#),
        false => http(401, &[], r#"{"details":"bad login"}"#),
    });
    let (server, image) = wants_token(format!("http://{}/token", tokens.address), |_, token| token == "t1");
    let host = server.address.to_string();
    let (good, bad) = (rig(patient()), rig(patient()));
    let name = reference(&server, "team/app");
    let pulled = good.pull(&name, &vec![secret(&host, "u", "p")]).await.expect("it is pulled");
    assert_eq!(pulled.digest, image.digest());
    assert!(server.requests().iter().all(|r| !r.header("authorization").starts_with("Basic")));
    let error = bad.refused(&name, &vec![secret(&host, "u", "no")]).await;
    assert!(error.contains("wrong or missing credentials"), "{error}");
    assert!(error.contains("bad login"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_know_only_oauth_are_posted_to() {
    if !root() {
        return;
    }
    let tokens = Server::start(|request| match request.method.as_str() {
        "POST" => http(200, &[], r#"{"access_token":"t1"}"#),
        _ => http(405, &[], ""),
    });
    let (server, _) = wants_token(format!("http://{}/token", tokens.address), |_, token| token == "t1");
    let host = server.address.to_string();
    rig(patient()).pull(&reference(&server, "team/app"), &vec![secret(&host, "u", "p&q")]).await.expect("it is pulled");
    let posted = tokens.requests().into_iter().find(|r| r.method == "POST").expect("a POST");
    for part in ["grant_type=password", "username=u", "password=p%26q", "service=the+registry", "scope=repository%3A"] {
        assert!(posted.body.contains(part), "{}", posted.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_tokens_are_exchanged_and_registry_tokens_presented() {
    if !root() {
        return;
    }
    let tokens = Server::start(|request| match request.body.contains("grant_type=refresh_token&refresh_token=idt") {
        true => http(200, &[], r#"{"access_token":"t1"}"#),
        false => http(401, &[], ""),
    });
    let (server, _) =
        wants_token(format!("http://{}/token", tokens.address), |_, token| token == "t1" || token == "own");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("auth.json");
    for entry in [r#"{"identitytoken":"idt"}"#, r#"{"registrytoken":"own"}"#] {
        let text = format!(r#"{{"auths":{{"{}/team":{entry}}}}}"#, server.address);
        std::fs::write(&path, text).expect("the file is written");
        let config = RegistryConfig { credential_files: Some(vec![path.clone()]), ..patient() };
        rig(config).pull(&reference(&server, "team/app"), &Vec::new()).await.expect(entry);
    }
    assert_eq!(tokens.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_does_not_follow_a_redirect_to_another_host() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let bytes = image.last().bytes.clone();
    let thief = Server::start(move |request| match request.count {
        // A challenge from there is not answered either.
        0 if request.target == "/challenge" => http(401, &[("www-authenticate", "Basic")], ""),
        _ => super::fake::blob(request, &bytes),
    });
    let (served, elsewhere) = (image.clone(), thief.address);
    let server = Server::start(move |request| match request.header("authorization") {
        "" => http(401, &[("www-authenticate", "Basic realm=r")], ""),
        _ if request.is_blob(served.last().digest) => {
            http(307, &[("location", &format!("http://{elsewhere}/layer"))], "")
        }
        _ => served.answer(request),
    });
    let secrets: PullCredentials = vec![secret(&server.address.to_string(), "u", "p")];
    rig(patient()).pull(&reference(&server, "team/app"), &secrets).await.expect("it is pulled");
    assert!(thief.requests().iter().all(|r| r.header("authorization").is_empty() && !r.body.contains('p')));
    assert_eq!(thief.requests().len(), 1);
    let elsewhere = thief.address;
    let server = Server::start(move |_| http(307, &[("location", &format!("http://{elsewhere}/challenge"))], ""));
    let secrets: PullCredentials = vec![secret(&server.address.to_string(), "u", "p")];
    let error = rig(patient()).refused(&reference(&server, "team/app"), &secrets).await;
    assert!(error.contains("answered 401"), "{error}");
    assert!(thief.requests().iter().all(|r| r.header("authorization").is_empty()));
}

/// Challenges and token services that are wrong; the login must not leave for any of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_challenges_and_token_services_are_refused() {
    if !root() {
        return;
    }
    let service = Server::start(|request| match request.target.split('?').next().unwrap_or_default() {
        "/empty" => http(200, &[], ""),
        "/object" => http(200, &[], "{}"),
        "/list" => http(200, &[], "[]"),
        "/null" => http(200, &[], r#"{"token":null,"access_token":""}"#),
        "/lines" => http(200, &[], r#"{"token":"a\r\nx-evil: 1"}"#),
        "/page" => http(200, &[("content-type", "text/html")], "<html>"),
        "/large" => http(200, &[], vec![b' '; 2_000_000]),
        "/hang" => Reply::Steps(vec![super::fake::Step::Hang]),
        "/500" => http(500, &[], ""),
        "/429" => http(429, &[("retry-after", "600")], ""),
        "/404" => http(404, &[], ""),
        "/circle" => http(302, &[("location", "/circle")], ""),
        "/away" => http(302, &[("location", "http://192.0.2.9/token")], ""),
        _ => http(200, &[], r#"{"token":"never good","expires_in":-5}"#.replace(' ', "-")),
    });
    let base = format!("http://{}", service.address);
    let bearer = |realm: &str| format!("Bearer realm=\"{realm}\",service=\"s\"");
    let mut wrong = Vec::new();
    for (challenge, expected) in [
        ("Digest realm=\"r\", nonce=\"n\"".to_owned(), "it wants `digest`"),
        ("NTLM".to_owned(), "it wants `ntlm`"),
        ("\u{1}\u{2}".to_owned(), "broke off its answer"),
        ("=, ,\"".to_owned(), "wrong or missing credentials"),
        ("Bearer".to_owned(), "the realm `` is not an address"),
        (bearer(""), "the realm `` is not an address"),
        (bearer("not an address"), "is not an address"),
        (bearer("file:///etc/shadow"), "is neither http nor https"),
        (bearer("http://u:p@127.0.0.1/"), "the realm holds a user name"),
        (bearer("http://192.0.2.9/token"), "speaks http without TLS"),
        (bearer("http://registry.example/token"), "speaks http without TLS"),
        (bearer(&format!("{base}/empty")), "is not valid JSON"),
        (bearer(&format!("{base}/object")), "holds no token"),
        (bearer(&format!("{base}/list")), "is not valid JSON"),
        (bearer(&format!("{base}/null")), "holds no token"),
        (bearer(&format!("{base}/lines")), "the token has odd characters"),
        (bearer(&format!("{base}/page")), "is not valid JSON"),
        (bearer(&format!("{base}/large")), "is larger than 1048576 bytes"),
        (bearer(&format!("{base}/hang")), "sent nothing"),
        (bearer(&format!("{base}/500")), "answered 500 for a token"),
        (bearer(&format!("{base}/429")), "asks to wait 600s"),
        (bearer(&format!("{base}/404")), "answered 404"),
        (bearer(&format!("{base}/circle")), "more than 5 redirects"),
        (bearer(&format!("{base}/away")), "over http without TLS"),
        (bearer(&format!("{base}/token")), "wrong or missing credentials"),
    ] {
        let header = challenge.clone();
        let server = Server::start(move |_| http(401, &[("www-authenticate", &header)], ""));
        let error = rig(if expected == "sent nothing" { quick() } else { patient() })
            .refused(&reference(&server, "team/app"), &vec![secret(&server.address.to_string(), "user", "pa55")])
            .await;
        if !error.contains(expected) || error.contains("pa55") || server.requests().len() > 10 {
            wrong.push(format!("{challenge}: expected `{expected}` in {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_is_hidden_from_strangers_is_asked_for_with_a_login() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let served = image.clone();
    let server = Server::start(move |request| {
        match (request.header("authorization") == basic("u", "p"), request.target.as_str()) {
            (true, _) => served.answer(request),
            (false, "/v2/") => http(401, &[("www-authenticate", "Basic")], ""),
            (false, _) => http(404, &[], ""),
        }
    });
    let name = reference(&server, "team/app");
    let secrets = vec![secret(&server.address.to_string(), "u", "p")];
    assert_eq!(rig(patient()).pull(&name, &secrets).await.expect("it is pulled").digest, image.digest());
    let error = rig(patient()).refused(&name, &Vec::new()).await;
    assert!(error.contains("image not found"), "{error}");
}
