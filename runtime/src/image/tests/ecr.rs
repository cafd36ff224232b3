//! ECR with the metadata service and the API played on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;

use super::fake::{Reply, Server, TestImage, http};
use super::{patient, reference, rig, root};
use crate::api::FailureClass;
use crate::image::registry::{EcrConfig, HostConfig, RegistryConfig};

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn metadata() -> Server {
    Server::start(|request| {
        let roles = "/latest/meta-data/iam/security-credentials/";
        match (request.method.as_str(), request.target.as_str()) {
            ("PUT", "/latest/api/token") if !request.header("x-aws-ec2-metadata-token-ttl-seconds").is_empty() => {
                http(200, &[], "imds")
            }
            ("GET", _) if request.header("x-aws-ec2-metadata-token") != "imds" => http(401, &[], ""),
            ("GET", target) if target == roles => http(200, &[], "node-role"),
            ("GET", target) if target.strip_prefix(roles) == Some("node-role") => http(
                200,
                &[],
                r#"{"Code":"Success","AccessKeyId":"AKID","SecretAccessKey":"s3cr3t","Token":"session","Expiration":"x"}"#,
            ),
            _ => http(404, &[], ""),
        }
    })
}

/// Pulls twice from a registry for which the API gives passwords that are valid until then; how often it was asked.
async fn check(expires_at: f64, expected: usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let api = Server::start(move |request| {
        let authorization = request.header("authorization");
        let signed = authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/")
            && authorization.contains("/eu-west-1/ecr/aws4_request, SignedHeaders=content-type;host;x-amz-date;")
            && request.header("x-amz-security-token") == "session"
            && request.header("x-amz-target").ends_with(".GetAuthorizationToken");
        if !signed || request.body != "{}" {
            return http(400, &[], r#"{"message":"bad signature"}"#);
        }
        count.fetch_add(1, Ordering::SeqCst);
        let token = encoded("AWS:password");
        http(
            200,
            &[],
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":{expires_at}}}]}}"#),
        )
    });
    let image = TestImage::usual();
    let served = image.clone();
    let basic = format!("Basic {}", encoded("AWS:password"));
    let server = Server::start(move |request| match request.header("authorization") == basic {
        true => served.answer(request),
        false => http(401, &[("www-authenticate", "Basic realm=\"ecr\"")], ""),
    });
    let metadata = metadata();
    let rig = rig(config_of(&server, &metadata, &api));
    for repository in ["team/a", "team/b"] {
        let name = reference(&server, repository);
        assert_eq!(rig.pull(&name, &Vec::new()).await.expect("it is pulled").digest, image.digest());
    }
    assert_eq!(asked.load(Ordering::SeqCst), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_gives_a_password_that_is_kept_and_renewed() {
    if !root() {
        return;
    }
    check(4_000_000_000.0, 1).await;
    check(1_000.0, 2).await;
}

/// A registry whose logins come from these two.
fn config_of(server: &Server, metadata: &Server, api: &Server) -> RegistryConfig {
    let mut config = patient();
    config.ecr = EcrConfig {
        metadata_endpoint: format!("http://{}", metadata.address),
        api_endpoint: Some(format!("http://{}", api.address)),
    };
    let host = HostConfig { ecr_region: Some("eu-west-1".to_owned()), ..HostConfig::default() };
    config.hosts.insert(server.address.to_string(), host);
    config
}

fn password(text: &str) -> Reply {
    let token = encoded(&format!("AWS:{text}"));
    let answer = format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":4000000000}}]}}"#);
    http(200, &[], answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_taken_back_is_asked_for_once_more() {
    if !root() {
        return;
    }
    for refusal in [http(401, &[("www-authenticate", "Basic realm=\"ecr\"")], ""), http(403, &[], "expired")] {
        let valid = Arc::new(AtomicUsize::new(0));
        let api = Server::start(|request| password(&format!("p{}", request.count)));
        let image = TestImage::usual();
        let (served, now) = (image.clone(), Arc::clone(&valid));
        let server = Server::start(move |request| {
            let basic = format!("Basic {}", encoded(&format!("AWS:p{}", now.load(Ordering::SeqCst))));
            match request.header("authorization") {
                "" => http(401, &[("www-authenticate", "Basic realm=\"ecr\"")], ""),
                given if given == basic => served.answer(request),
                _ => refusal.clone(),
            }
        });
        let metadata = metadata();
        let rig = rig(config_of(&server, &metadata, &api));
        let pull = async |name: &str| rig.pull(&reference(&server, name), &Vec::new()).await;
        pull("team/a").await.expect("with the first password");
        valid.store(1, Ordering::SeqCst);
        pull("team/b").await.expect("with the second");
        assert_eq!(api.requests().len(), 2);
        valid.store(9, Ordering::SeqCst);
        pull("team/c").await.expect_err("none is right");
        assert_eq!(api.requests().len(), 3, "asked once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_fail_for_now_say_nothing_of_the_login() {
    let server = Server::start(|_| http(401, &[("www-authenticate", "Basic")], ""));
    let (good, fine) = (metadata(), Server::start(|_| password("p")));
    let throttled = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
    let other = r#"{"__type":"InvalidParameterException","message":"no such thing as a ThrottlingException"}"#;
    let cases = [(500, "", true), (503, "", true), (429, "", true), (403, "", false), (400, "", false)];
    for (status, body, for_now) in cases.into_iter().chain([(400, throttled, true), (400, other, false)]) {
        let broken = Server::start(move |_| http(status, &[], body));
        // The metadata service has no such answer.
        let asked = [(&broken, &fine), (&good, &broken)].into_iter().skip(usize::from(!body.is_empty()));
        for (metadata, api) in asked {
            let rig = rig(config_of(&server, metadata, api));
            let name = reference(&server, "team/app");
            let error = rig.pull(&name, &Vec::new()).await.expect_err("no login");
            let class = error.failure().class();
            let said = super::text(error, &name);
            assert_eq!(class == FailureClass::Transient, for_now, "{status}: {said}");
            let expected = if for_now { "cannot log in to registry" } else { "wrong or missing credentials" };
            assert!(said.contains(expected), "{status}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_role_the_error_says_so() {
    let server = Server::start(|_| http(401, &[("www-authenticate", "Basic")], ""));
    let nothing = Server::start(|_| http(404, &[], ""));
    let mut config = patient();
    config.ecr = EcrConfig { metadata_endpoint: format!("http://{}", nothing.address), api_endpoint: None };
    let host = HostConfig { ecr_region: Some("eu-west-1".to_owned()), ..HostConfig::default() };
    config.hosts.insert(server.address.to_string(), host);
    let error = rig(config).refused(&reference(&server, "team/app"), &Vec::new()).await;
    assert!(error.contains("wrong or missing credentials") && error.contains("the instance's role ("), "{error}");
}
