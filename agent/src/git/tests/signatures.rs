//! Who may sign, and what.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use super::*;

fn refused(result: Result<String, GitError>, why: &str) {
    match result {
        Err(GitError::Signature { told, .. }) => assert!(told.contains(why), "{why}: {told}"),
        other => panic!("{why}: {other:?}"),
    }
}

fn gated(remote: &Remote, allowed: &Path, reference: &str) -> GitSource {
    let allowed_signers_file = Some(allowed.to_owned());
    GitSource { allowed_signers_file, ..remote.source(Some(reference), Some("hosts/web")) }
}

#[tokio::test]
async fn only_allowed_signers_change_anything() {
    let remote = Remote::new();
    let allowed = remote.signer("alice");
    let source = gated(&remote, &allowed, "main");
    refused(follow(&remote, &source).await, "");
    assert_eq!(remote.current("a.yaml"), None);
    remote.git(&["commit", "--quiet", "--amend", "--no-edit", "-S"]);
    follow(&remote, &source).await.expect("a good signature");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
    remote.commit("hosts/web/a.yaml", "unsigned");
    refused(follow(&remote, &source).await, "");
    remote.signer("mallory");
    remote.git(&["commit", "--quiet", "--amend", "--no-edit", "-S"]);
    refused(follow(&remote, &source).await, "");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
}

/// Writes the file of allowed signers anew: what stands before the key of each.
fn allow(remote: &Remote, name: &str, options: &str) {
    let public = std::fs::read_to_string(remote.dir.path().join(name).with_extension("pub")).expect("a public key");
    let line = if options.is_empty() { public } else { format!("{options} {public}") };
    std::fs::write(remote.dir.path().join(format!("{name}.allowed")), format!("t@example.org {line}")).expect("a file");
}

#[tokio::test]
async fn a_key_counts_for_its_time_and_its_purpose_only() {
    let remote = Remote::new();
    let allowed = remote.signer("alice");
    let source = gated(&remote, &allowed, "main");
    remote.git(&["commit", "--quiet", "--amend", "--no-edit", "-S"]);
    for (options, why) in [
        ("valid-before=\"20200101\"", Some("")),
        ("valid-after=\"20990101\"", Some("")),
        ("namespaces=\"file\"", Some("")),
        ("valid-after=\"20200101\",namespaces=\"git\"", None),
    ] {
        allow(&remote, "alice", options);
        let result = follow(&remote, &source).await;
        match why {
            Some(why) => refused(result, why),
            None => assert!(result.is_ok(), "{options}: {result:?}"),
        }
        assert_eq!(remote.current("a.yaml").is_some(), why.is_none(), "{options}");
    }
}

/// Signs the commit that counts now for another purpose than the one that git signs for.
fn sign_for(remote: &Remote, namespace: &str) {
    let commit = remote.git(&["cat-file", "commit", "HEAD"]) + "\n";
    let payload = remote.dir.path().join("payload");
    let signature = remote.dir.path().join("payload.sig");
    drop(std::fs::remove_file(&signature));
    std::fs::write(&payload, &commit).expect("a file");
    let signed = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
        .arg(remote.dir.path().join("alice"))
        .arg(&payload)
        .status();
    assert!(signed.expect("ssh-keygen is installed").success());
    let signature = std::fs::read_to_string(&signature).expect("a signature");
    let (head, message) = commit.split_once("\n\n").expect("a message");
    let commit = format!("{head}\ngpgsig {}\n\n{message}", signature.trim_end().replace('\n', "\n "));
    let mut hash = Command::new("git")
        .args(["hash-object", "-t", "commit", "-w", "--stdin"])
        .current_dir(remote.work())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git is installed");
    std::io::Write::write_all(&mut hash.stdin.take().expect("it is piped"), commit.as_bytes()).expect("it reads");
    let output = hash.wait_with_output().expect("it ends");
    let object = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    remote.git(&["update-ref", "refs/heads/main", &object]);
}

#[tokio::test]
async fn a_signature_for_something_else_is_none() {
    let remote = Remote::new();
    let allowed = remote.signer("alice");
    let source = gated(&remote, &allowed, "main");
    sign_for(&remote, "file");
    refused(follow(&remote, &source).await, "");
    // The same by hand for git's own purpose is good: the commit is made properly.
    remote.commit("hosts/web/a.yaml", "two");
    sign_for(&remote, "git");
    follow(&remote, &source).await.expect("a good signature");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("two"));
}

#[tokio::test]
async fn a_tag_is_signed_itself_and_under_its_own_name() {
    let remote = Remote::new();
    let allowed = remote.signer("alice");
    remote.git(&["tag", "-s", "-m", "signed", "v1"]);
    // The commit has no signature; the tag has one.
    follow(&remote, &gated(&remote, &allowed, "v1")).await.expect("a good signature");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
    refused(follow(&remote, &gated(&remote, &allowed, "main")).await, "");
    remote.commit("hosts/web/a.yaml", "two");
    remote.git(&["tag", "light"]);
    remote.git(&["tag", "-a", "-m", "annotated", "bare"]);
    refused(follow(&remote, &gated(&remote, &allowed, "light")).await, "");
    refused(follow(&remote, &gated(&remote, &allowed, "bare")).await, "");
    // Who may write to the repository and may not sign gives an old tag a new name.
    remote.git(&["update-ref", "refs/tags/v2", "refs/tags/v1"]);
    refused(follow(&remote, &gated(&remote, &allowed, "v2")).await, "`v1`");
    refused(follow(&remote, &gated(&remote, &allowed, "refs/tags/v2")).await, "`v1`");
    remote.signer("mallory");
    remote.git(&["tag", "-s", "-m", "signed", "v3"]);
    refused(follow(&remote, &gated(&remote, &allowed, "v3")).await, "");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
}

/// Who turns the gate on, or takes a key back, is told what is in place now would not pass.
#[tokio::test]
async fn another_list_of_signers_is_asked_again() {
    let remote = Remote::new();
    let open = remote.source(Some("main"), Some("hosts/web"));
    let commit = follow(&remote, &open).await.expect("no signature is asked for");
    let allowed = remote.signer("alice");
    let source = gated(&remote, &allowed, "main");
    refused(follow(&remote, &source).await, "");
    assert_eq!(crate::revisions::current(&remote.home()), Some(commit), "it stays, and it is told");
    remote.git(&["commit", "--quiet", "--amend", "--no-edit", "-S"]);
    let signed = follow(&remote, &source).await.expect("a good signature");
    assert_eq!(follow(&remote, &source).await.expect("nothing new"), signed);
    std::fs::write(&allowed, "").expect("a file");
    refused(follow(&remote, &source).await, "");
    std::fs::remove_file(&allowed).expect("a file");
    let result = follow(&remote, &source).await;
    assert!(matches!(result, Err(GitError::Signers { .. })), "{result:?}");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
}

/// A signature of OpenPGP says nothing about the list, whatever keys a gpg on this host has.
#[tokio::test]
async fn only_signatures_of_ssh_count() {
    let remote = Remote::new();
    let allowed = remote.signer("alice");
    let believer = remote.dir.path().join("gpg");
    let says = "#!/bin/sh\necho '[GNUPG:] GOODSIG 1 t' >&1\necho '[GNUPG:] VALIDSIG 1' >&1\n";
    std::fs::write(&believer, says).expect("a file");
    std::fs::set_permissions(&believer, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let signer = remote.dir.path().join("signer");
    let signs = "#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED x' >&2\n\
                 printf -- '-----BEGIN PGP SIGNATURE-----\\n\\nAAAA\\n-----END PGP SIGNATURE-----\\n'\n";
    std::fs::write(&signer, signs).expect("a file");
    std::fs::set_permissions(&signer, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let program = format!("gpg.program={}", signer.display());
    remote.git(&["-c", "gpg.format=openpgp", "-c", &program, "commit", "--quiet", "--amend", "--no-edit", "-S"]);
    assert!(remote.git(&["cat-file", "commit", "HEAD"]).contains("PGP SIGNATURE"));
    // Such a configuration of the clone itself would be believed, if the settings did not stand above it.
    let source = gated(&remote, &allowed, "main");
    refused(follow(&remote, &source).await, "");
    let config = remote.home().join("repository/config");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, format!("{text}[gpg]\n\tprogram = {}\n", believer.display())).expect("a file");
    refused(follow(&remote, &source).await, "");
}
