//! `[[oci]]`: artifacts in registries that hold manifests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::image_ref::ImageRef;

use super::tables::{self, Named};

/// An artifact that is a source, as configured. Logins, mirrors and certificates are those of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OciSource {
    /// Its name here: a label, and the name of its directory below the data directory.
    pub name: String,
    /// `registry/repository:tag`, or with `@sha256:` and a digest; `oci://` may stand before it.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The directory in it with the manifests, after `strip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// So many leading directories of each name in an archive are left out, as `tar --strip-components` does.
    #[serde(default)]
    pub strip: usize,
    /// How often the registry is asked.
    #[serde(default = "tables::poll", with = "tables::length")]
    pub poll: Duration,
}

impl OciSource {
    /// Which artifact.
    ///
    /// # Errors
    /// It is none; settings were checked for it when they were read.
    pub fn image_ref(&self) -> Result<ImageRef, spec::image_ref::InvalidImageRef> {
        ImageRef::parse(self.reference.strip_prefix("oci://").unwrap_or(&self.reference))
    }

    /// Where its revisions are kept.
    #[must_use]
    pub fn directory(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("oci").join(&self.name)
    }

    /// For people: `oci://ghcr.io/fleet:main#hosts/web`.
    #[must_use]
    pub fn label(&self) -> String {
        let reference = self.reference.strip_prefix("oci://").unwrap_or(&self.reference);
        match &self.path {
            Some(path) => format!("oci://{reference}#{}", path.display()),
            None => format!("oci://{reference}"),
        }
    }
}

impl Named for OciSource {
    const KEY: &'static str = "oci";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        let reference = self.image_ref().map_err(|error| error.to_string())?;
        // A fleet that follows `latest` because somebody forgot the tag is a surprise.
        if reference.digest().is_none() && !self.reference.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            return Err(format!("expected a tag or digest in `{}`", self.reference));
        }
        if self.path.as_ref().is_some_and(|path| !tables::is_below(path)) {
            return Err("expected `path` below the top of the artifact".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::read;
    use super::super::values::Input;
    use super::OciSource;

    #[test]
    fn what_is_an_artifact() {
        let check = |fields: &str, want: Result<&str, &str>| match (
            read::<OciSource>(Input::Text(&format!("[{{ {fields} }}]"))),
            want,
        ) {
            (Ok(read), Ok(want)) => assert_eq!(read.first().map(OciSource::label).as_deref(), Some(want)),
            (Err(error), Err(want)) => assert!(error.contains(want), "{fields}: {error}"),
            (read, want) => panic!("{fields}: {read:?} instead of {want:?}"),
        };
        let digest = format!("sha256:{}", "0a".repeat(32));
        check("name='a', ref='ghcr.io/o/fleet:main'", Ok("oci://ghcr.io/o/fleet:main"));
        check(
            "name='a', ref='oci://127.0.0.1:5000/fleet:v1', path='web', poll='5m'",
            Ok("oci://127.0.0.1:5000/fleet:v1#web"),
        );
        check(&format!("name='a', ref='h.io/f@{digest}', strip=1"), Ok(&format!("oci://h.io/f@{digest}")));
        check("name='a', ref='127.0.0.1:5000/fleet'", Err("expected a tag or digest"));
        check("name='a', ref='https://h.io/f:v1'", Err("invalid image reference"));
        check("name='a', ref='h.io/f:v1', path='../x'", Err("below the top"));
        check("name='a', ref='h.io/f:v1', poll='0s'", Err("at least 1s"));
        check("name='a', ref='h.io/f:v1', token_file='/t'", Err("unknown field"));
        check("name='a'", Err("missing field `ref`"));
        check("name='A', ref='h.io/f:v1'", Err("expected a name"));
        check("name='a', ref='h.io/f:v1' }, { name='a', ref='h.io/g:v1'", Err("twice"));
    }
}
