//! Platforms: what an image is for, and which of several fits this host best.
//!
//! Source: OCI image specification, image-index.md, "Platform Variants"; the order of fallbacks is containerd's.

use std::fmt;

use super::super::errors::clean;

/// Operating system, architecture and variant in their usual names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// With other common names turned into Go's, and variants that mean nothing left out.
    pub(crate) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = match (architecture, variant.filter(|variant| !variant.is_empty())) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("i386" | "x86", variant) => ("386", variant),
            other => other,
        };
        let variant = match (architecture, variant) {
            ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => None,
            ("arm", None | Some("7")) => Some("v7"),
            ("arm", Some("6")) => Some("v6"),
            ("arm", Some("5")) => Some("v5"),
            (_, variant) => variant,
        };
        let os = if os.is_empty() { "linux" } else { os };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// Of this host.
    pub(crate) fn of_host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, None)
    }

    /// Parses `os/architecture[/variant]`, or an architecture alone.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let fits = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        match parts.as_slice() {
            all if !all.iter().all(fits) => Err(format!("`{}` is not `os/architecture`", clean(text, 60))),
            ["linux"] => Ok(Self::of_host()),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            ["linux", architecture] => Ok(Self::new("linux", architecture, None)),
            ["linux", architecture, variant] => Ok(Self::new("linux", architecture, Some(variant))),
            [os, ..] => Err(format!("images for `{os}` do not run on Linux")),
            [] => Err("it is empty".to_owned()),
        }
    }

    /// The same system, and processor when that is asked.
    pub(crate) fn is_like(&self, other: &Self, processor: bool) -> bool {
        self.os == other.os && (!processor || self.architecture == other.architecture)
    }

    /// How well another platform's programs run here: 0 is best, `None` not at all.
    pub(crate) fn rank(&self, other: &Self) -> Option<u8> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        match (self.variant.as_deref(), other.variant.as_deref()) {
            (mine, theirs) if mine == theirs => Some(0),
            // Programs for an older ARM run on a newer one.
            (Some(mine), theirs) if self.architecture == "arm" => {
                let number = |variant: &str| variant.strip_prefix('v').and_then(|v| v.parse::<u8>().ok());
                number(mine)?.checked_sub(number(theirs.unwrap_or("v7"))?)
            }
            // The plain image runs on every variant.
            (Some(_), None) => Some(1),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_platform_is_chosen() {
        for (wanted, offered, best) in [
            ("linux/amd64", vec!["linux/arm64", "linux/amd64"], Some("linux/amd64")),
            ("linux/x86_64", vec!["linux/amd64/v1"], Some("linux/amd64")),
            ("linux/amd64", vec!["linux/amd64/v3", "linux/amd64"], Some("linux/amd64")),
            ("linux/amd64", vec!["linux/amd64/v3"], None),
            ("linux/amd64/v3", vec!["linux/amd64"], Some("linux/amd64")),
            ("linux/arm64", vec!["linux/arm64/v8"], Some("linux/arm64")),
            ("linux/arm/v7", vec!["linux/arm/v5", "linux/arm/v6"], Some("linux/arm/v6")),
            ("linux/arm/v6", vec!["linux/arm/v7"], None),
            ("amd64", vec!["linux/386"], None),
        ] {
            let wanted = Platform::parse(wanted).expect("a platform");
            let found = offered
                .iter()
                .map(|o| Platform::parse(o).expect("a platform"))
                .filter_map(|p| wanted.rank(&p).map(|rank| (rank, p)))
                .min_by_key(|(rank, _)| *rank)
                .map(|(_, p)| p.to_string());
            assert_eq!(found.as_deref(), best, "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn other_systems_and_odd_names_are_refused() {
        for text in ["windows/amd64", "", "linux/", "a/b/c/d", "linux/../..", "linux/amd64\n"] {
            assert!(Platform::parse(text).is_err(), "{text:?}");
        }
    }
}
