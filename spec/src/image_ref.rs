//! Image references: `[registry/]repository[:tag][@digest]`, normalised as Docker does.
//!
//! Source of the grammar: distribution/reference (the "familiar name" rules) and the OCI distribution
//! specification, section "Pulling manifests".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A normalised image reference. `nginx` becomes `docker.io/library/nginx:latest`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference `{text}`: {reason}")]
pub struct InvalidImageRef {
    /// What was written, shortened.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The registry that a reference without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

impl ImageRef {
    /// Parses and normalises a reference.
    pub fn parse(text: &str) -> Result<Self, InvalidImageRef> {
        let fail = |reason| Err(InvalidImageRef { text: text.chars().take(200).collect(), reason });
        if text.is_empty() {
            return fail("it is empty");
        }
        if text.len() > 512 {
            return fail("it is longer than 512 bytes");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => match Digest::parse(digest) {
                Ok(digest) => (rest, Some(digest)),
                Err(_) => return fail("after `@` comes `sha256:` and 64 lower-case hex digits"),
            },
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => (DEFAULT_REGISTRY, rest),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        if !is_registry(registry) {
            return fail("the registry is not `host` or `host:port`");
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if path.is_empty() {
            return fail("the repository is missing");
        }
        if repository.len() > 255 {
            return fail("the repository is longer than 255 bytes");
        }
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return fail("the repository must be lower case");
        }
        if !repository.split('/').all(is_component) {
            return fail("the repository has characters other than a-z, 0-9 and single `.`, `_`, `-` between them");
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return fail("the tag has characters other than A-Z, a-z, 0-9, `_`, `.`, `-`, or is longer than 128");
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// Host and optional port of the registry; `docker.io` for Docker Hub.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository below the registry, with `library/` where Docker Hub implies it.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` when neither tag nor digest was written, none when only a digest was.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, Some(_)) => None,
            (None, None) => Some("latest"),
        }
    }

    /// The digest, when one was written.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository at exactly this digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// What the registry's manifest endpoint is asked for: the digest, else the tag.
    #[must_use]
    pub fn manifest_reference(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag().unwrap_or("latest").to_owned(),
        }
    }

    /// Kubernetes' default for `imagePullPolicy`: `Always` for `:latest` or no tag, else `IfNotPresent`;
    /// a digest is `IfNotPresent` (Kubernetes API, Container.imagePullPolicy).
    #[must_use]
    pub fn default_pull_policy(&self) -> crate::pod::PullPolicy {
        if self.digest.is_none() && self.tag() == Some("latest") {
            crate::pod::PullPolicy::Always
        } else {
            crate::pod::PullPolicy::IfNotPresent
        }
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if !host.is_empty() && host.chars().all(|c| c.is_ascii_hexdigit() || c == ':') => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_component(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !edge(text.chars().next()) || !edge(text.chars().next_back()) {
        return false;
    }
    // Separators: one `.`, one or two `_`, or any number of `-`.
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ImageRef {
    type Err = InvalidImageRef;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised() {
        let hex = "a".repeat(64);
        for (written, normal) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("ghcr.io/o/p__q/r-s.t", "ghcr.io/o/p__q/r-s.t:latest"),
            (&format!("nginx@sha256:{hex}"), &format!("docker.io/library/nginx@sha256:{hex}")),
            (&format!("a.b/c:d@sha256:{hex}"), &format!("a.b/c:d@sha256:{hex}")),
        ] {
            let parsed = ImageRef::parse(written).unwrap_or_else(|e| panic!("{written}: {e}"));
            assert_eq!(parsed.to_string(), normal);
            assert_eq!(
                ImageRef::parse(normal).expect("normal form parses"),
                ImageRef::parse(&parsed.to_string()).expect("again")
            );
        }
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            ":x",
            "a b",
            "Nginx",
            "a..b",
            "a/",
            "/a",
            "a:",
            "a:b:c",
            "a@sha256:12",
            "x.y:99999/a",
            "a/../b",
            "-a",
            "a_-b",
            "http://a/b",
            "${IMAGE}",
        ] {
            assert!(ImageRef::parse(text).is_err(), "{text}");
        }
    }
}
