//! `[[git]]`: repositories that hold manifests.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::Input;

/// How often a repository is asked by default.
const POLL: Duration = Duration::from_secs(60);

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
    #[serde(default = "poll", with = "length")]
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

fn poll() -> Duration {
    POLL
}

fn username() -> String {
    "git".to_owned()
}

mod length {
    use std::time::Duration;

    pub(super) fn serialize<S: serde::Serializer>(length: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*length))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(from)?;
        match humantime::parse_duration(&text) {
            Ok(length) if length >= Duration::from_secs(1) => Ok(length),
            Ok(_) => Err(serde::de::Error::custom("`poll` must be at least 1s")),
            Err(_) => Err(serde::de::Error::custom(format!("expected a length of time such as 1m, found `{text}`"))),
        }
    }
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

    /// The directory that is read as a source: the revision that counts now.
    #[must_use]
    pub fn root(&self, data_dir: &Path) -> PathBuf {
        self.directory(data_dir).join("current")
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

    fn check(&self) -> Result<(), String> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 63 || self.name.starts_with('-') || !self.name.chars().all(label) {
            return Err(format!("expected a name of a-z, 0-9 and `-`, found `{}`", self.name));
        }
        let about = |message: String| format!("`{}`: {message}", self.name);
        if self.url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(about("the URL has white space in it".to_owned()));
        }
        let transport = Transport::of(&self.url).map_err(about)?;
        if let Some(reference) = &self.reference
            && !is_reference(reference)
        {
            return Err(about(format!("expected a branch, tag or commit, found `{reference}`")));
        }
        if let Some(path) = &self.path
            && (path.as_os_str().is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))))
        {
            return Err(about(format!("expected a path below the top of the repository, found `{}`", path.display())));
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
                return Err(about(format!("`{key}` has no effect with {}", transport.word())));
            }
            let secret = matches!(key, "token_file" | "ssh_key_file");
            let good = if secret { crate::credential::is_valid(file) } else { file.is_absolute() };
            if !good {
                return Err(about(format!("expected an absolute path in `{key}`, found `{}`", file.display())));
            }
        }
        if transport == Transport::Ssh && self.known_hosts_file.is_none() {
            return Err(about("ssh needs `known_hosts_file`: the host proves with it who it is".to_owned()));
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

/// Reads the list; in text it is TOML's array of tables.
pub(super) fn sources(input: Input<'_>) -> Result<Vec<GitSource>, String> {
    #[derive(Deserialize)]
    struct Of {
        git: Vec<GitSource>,
    }
    let table = match input {
        Input::Toml(value) => toml::Table::from_iter([("git".to_owned(), value.clone())]),
        Input::Text(text) => {
            format!("git = {text}").parse().map_err(|error: toml::de::Error| error.message().to_owned())?
        }
    };
    let Of { git } = table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    for (index, source) in git.iter().enumerate() {
        source.check()?;
        if git.iter().take(index).any(|other| other.name == source.name) {
            return Err(format!("`{}` is there twice", source.name));
        }
    }
    Ok(git)
}

#[cfg(test)]
mod tests {
    use super::{Input, Transport, sources};

    #[test]
    fn what_is_a_repository() {
        let check = |fields: &str, want: Result<Transport, &str>| {
            let read = sources(Input::Text(&format!("[{{ {fields} }}]")));
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
        check("name='a', url='/x', poll='5'", Err("length of time"));
        check("name='a', url='/x' }, { name='a', url='/y'", Err("twice"));
    }
}
