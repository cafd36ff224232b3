//! `[[git]]`: repositories that hold manifests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tables::{self, Named};

/// A repository that is a source, as configured. It never holds a credential, only the names of files with one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// Its name here: a label, and the name of its directory below the data directory.
    pub name: String,
    /// `https://`, `ssh://`, `user@host:path`, `file://` or an absolute path.
    pub url: String,
    /// Branch, tag or commit; the remote's `HEAD` when it is not given.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The directory in it with the manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How often the remote is asked.
    #[serde(default = "tables::poll", with = "tables::length")]
    pub poll: Duration,
    /// User of https; tokens of most hosts work with any.
    #[serde(default = "username")]
    pub username: String,
    /// File with the password or token for https, or `credential:NAME`; sent to the host of `url` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// File with more certificates for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The private key for ssh: a file, or `credential:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key_file: Option<PathBuf>,
    /// The hosts' keys for ssh; a host that is not in it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts_file: Option<PathBuf>,
    /// Who may sign: with it, a revision without a good signature of one of them is refused. The format is that of
    /// `ssh-keygen`, section ALLOWED SIGNERS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_signers_file: Option<PathBuf>,
}

fn username() -> String {
    "git".to_owned()
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `https`.
    Https,
    /// `http`, on this host only.
    Http,
    /// `ssh`.
    Ssh,
    /// A repository on this host.
    File,
}

impl Transport {
    /// Git's name of the protocol.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }

    fn of(url: &str) -> Result<Self, String> {
        if url.starts_with('/') || url.starts_with("file:///") {
            return Ok(Self::File);
        }
        if let Some((scheme, rest)) = url.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
            if host.is_empty() || host.starts_with('-') {
                return Err(format!("expected a host in `{url}`"));
            }
            let bare = host
                .strip_suffix(|c: char| c.is_ascii_digit())
                .map_or(host, |_| host.rsplit_once(':').map_or(host, |(name, _)| name));
            return match scheme {
                "https" | "http" if !user.is_empty() => {
                    Err("credentials do not belong into the URL: name a file with `token_file`".to_owned())
                }
                "https" => Ok(Self::Https),
                "http" if matches!(bare, "127.0.0.1" | "localhost" | "[::1]") => Ok(Self::Http),
                "http" => Err("http is for 127.0.0.1 only: use https or ssh".to_owned()),
                "ssh" if user.contains(':') => {
                    Err("credentials do not belong into the URL: name a file with `ssh_key_file`".to_owned())
                }
                "ssh" => Ok(Self::Ssh),
                other => Err(format!("expected https, ssh or file, found `{other}`")),
            };
        }
        match url.split_once(':') {
            Some((host, path)) if !host.is_empty() && !path.is_empty() && !host.contains(['/', ' ']) => {
                if host.starts_with('-') { Err(format!("expected a host, found `{host}`")) } else { Ok(Self::Ssh) }
            }
            Some(_) | None => Err(format!(
                "expected https://host/path, ssh://host/path, user@host:path, file:///path or an absolute path, found `{url}`"
            )),
        }
    }
}

impl GitSource {
    /// How it is reached.
    #[must_use]
    pub fn transport(&self) -> Transport {
        // Checked when the settings were read.
        Transport::of(&self.url).unwrap_or(Transport::Https)
    }

    /// Where its revisions are kept.
    #[must_use]
    pub fn directory(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("git").join(&self.name)
    }

    /// For people: `https://host/fleet.git#main:hosts/web`.
    #[must_use]
    pub fn label(&self) -> String {
        let reference = self.reference.as_deref().unwrap_or("HEAD");
        match &self.path {
            Some(path) => format!("{}#{reference}:{}", self.url, path.display()),
            None => format!("{}#{reference}", self.url),
        }
    }
}

impl Named for GitSource {
    const KEY: &'static str = "git";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        if self.url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("the URL has white space in it".to_owned());
        }
        let transport = Transport::of(&self.url)?;
        if let Some(reference) = &self.reference
            && !is_reference(reference)
        {
            return Err(format!("expected a branch, tag or commit, found `{reference}`"));
        }
        if let Some(path) = &self.path
            && !tables::is_below(path)
        {
            return Err(format!("expected a path below the top of the repository, found `{}`", path.display()));
        }
        let files = [
            ("token_file", &self.token_file, matches!(transport, Transport::Https | Transport::Http)),
            ("ca_file", &self.ca_file, transport == Transport::Https),
            ("ssh_key_file", &self.ssh_key_file, transport == Transport::Ssh),
            ("known_hosts_file", &self.known_hosts_file, transport == Transport::Ssh),
            ("allowed_signers_file", &self.allowed_signers_file, true),
        ];
        for (key, file, fits) in files {
            let Some(file) = file else { continue };
            if !fits {
                return Err(format!("`{key}` has no effect with {}", transport.word()));
            }
            let secret = matches!(key, "token_file" | "ssh_key_file");
            let good = if secret { crate::credential::is_valid(file) } else { file.is_absolute() };
            if !good {
                return Err(format!("expected an absolute path in `{key}`, found `{}`", file.display()));
            }
        }
        if transport == Transport::Ssh && self.known_hosts_file.is_none() {
            return Err("ssh needs `known_hosts_file`: the host proves with it who it is".to_owned());
        }
        Ok(())
    }
}

/// Rules of `git check-ref-format`, as far as they keep a name from meaning something else on a command line.
fn is_reference(text: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    !text.is_empty()
        && !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !text.contains("..")
        && !text.contains("//")
        && !text.contains("@{")
        && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::super::tables::read;
    use super::super::values::Input;
    use super::{GitSource, Transport};

    #[test]
    fn what_is_a_repository() {
        let check = |fields: &str, want: Result<Transport, &str>| {
            let read = read::<GitSource>(Input::Text(&format!("[{{ {fields} }}]")));
            match (read, want) {
                (Ok(read), Ok(want)) => {
                    assert_eq!(read.first().map(super::GitSource::transport), Some(want), "{fields}")
                }
                (Err(error), Err(want)) => assert!(error.contains(want), "{fields}: {error}"),
                (read, want) => panic!("{fields}: {read:?} instead of {want:?}"),
            }
        };
        check("name='a', url='https://host/x.git'", Ok(Transport::Https));
        check("name='a', url='https://host:8443/x.git', ref='v1.2', path='hosts/web', poll='5m'", Ok(Transport::Https));
        check("name='a', url='http://127.0.0.1:3000/x'", Ok(Transport::Http));
        check("name='a', url='/srv/x.git'", Ok(Transport::File));
        check("name='a', url='file:///srv/x.git'", Ok(Transport::File));
        check("name='a', url='git@host:x.git', known_hosts_file='/k'", Ok(Transport::Ssh));
        check("name='a', url='ssh://git@host/x.git', known_hosts_file='/k'", Ok(Transport::Ssh));
        check("name='a', url='git@host:x.git'", Err("known_hosts_file"));
        check("name='a', url='http://host/x'", Err("use https"));
        check("name='a', url='https://me:secret@host/x'", Err("token_file"));
        check("name='a', url='ext::sh -c id'", Err("white space"));
        check("name='a', url='--upload-pack=id'", Err("expected https"));
        check("name='a', url='-oProxyCommand=id:x'", Err("expected a host"));
        check("name='a', url='ssh://-oProxyCommand=id/x'", Err("expected a host"));
        check("name='a', url='ftp://host/x'", Err("found `ftp`"));
        check("name='../a', url='/x'", Err("expected a name"));
        check("name='a', url='/x', ref='--all'", Err("expected a branch"));
        check("name='a', url='/x', ref='a..b'", Err("expected a branch"));
        check("name='a', url='/x', path='../y'", Err("below the top"));
        check("name='a', url='/x', path='/y'", Err("below the top"));
        check("name='a', url='/x', token_file='/t'", Err("no effect with file"));
        check("name='a', url='https://h/x', token_file='t'", Err("absolute path"));
        check("name='a', url='https://h/x', token_file='credential:git'", Ok(Transport::Https));
        check("name='a', url='https://h/x', token_file='credential:../git'", Err("absolute path"));
        check("name='a', url='https://h/x', ca_file='credential:ca'", Err("absolute path"));
        check("name='a', url='/x', pol='5m'", Err("unknown field `pol`"));
        let second = "name='a', url='/x' }, { name='b', url='https://h/y', tokenfile='/t'";
        check(second, Err("`b`: unknown field `tokenfile`, did you mean `token_file`?"));
        check("url='/x'", Err("number 1: missing field `name`"));
        check("name='a', url='/x', colour='red'", Err("`a`: unknown field `colour`, expected one of"));
        check("name='a', url='/x', poll='5'", Err("length of time"));
        check("name='a', url='/x' }, { name='a', url='/y'", Err("twice"));
    }
}
