//! Capabilities by name and as sets, and which ones a container gets.
//!
//! Docker's fourteen are the default; `privileged` has every one that this process may pass on.

use spec::capability::NAMES;
use spec::pod::Security;

use crate::sys;

/// What Docker and containerd give (moby `oci/caps/defaults.go`).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct CapSet(pub u64);

/// A name that is no capability.
#[derive(Debug, thiserror::Error)]
#[error("unknown capability {0}")]
pub struct UnknownCapability(pub String);

impl CapSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// Every one that has a name.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// What lets a process install a filter without `no_new_privs`.
    pub const SYS_ADMIN: Self = Self(1 << 21);

    /// The set of one capability, by its name with or without `CAP_`, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|known| *known == plain).map(|at| Self(1 << at))
    }

    /// This set and another.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less another.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of another set is in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Numbers of its members.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |bit| self.0 & (1 << bit) != 0)
    }
}

/// The name of a capability, without `CAP_`.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    NAMES.get(usize::try_from(number).ok()?).copied()
}

/// The bounding set of this process.
#[must_use]
pub fn bounding() -> CapSet {
    // PR_CAPBSET_READ fails at the first number that the kernel does not know.
    let known = (0..64).map_while(|number| sys::prctl(libc::PR_CAPBSET_READ, number, 0).ok().map(|on| (number, on)));
    CapSet(known.filter(|(_, on)| *on == 1).fold(0, |all, (number, _)| all | 1 << number))
}

/// The capabilities of a container (Kubernetes SecurityContext.capabilities; Docker `--cap-add`, `--cap-drop`):
/// `ALL` first, then single names, dropping before adding.
///
/// # Errors
/// An unknown name.
pub fn wanted(security: &Security) -> Result<CapSet, UnknownCapability> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let set = |names: &[String]| {
        names.iter().filter(|name| !is_all(name)).try_fold(CapSet::EMPTY, |all, name| {
            CapSet::named(name).map(|cap| all.with(cap)).ok_or_else(|| UnknownCapability(name.clone()))
        })
    };
    let (add, drop) = (set(&security.cap_add)?, set(&security.cap_drop)?);
    if security.privileged {
        return Ok(CapSet::ALL);
    }
    let default = DEFAULT.iter().filter_map(|name| CapSet::named(name)).fold(CapSet::EMPTY, CapSet::with);
    Ok(match (security.cap_add.iter().any(is_all), security.cap_drop.iter().any(is_all)) {
        (true, _) => CapSet::ALL.without(drop),
        (false, true) => add,
        (false, false) => default.without(drop).with(add),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: u64 = 0xa804_25fb;

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], privileged: bool, expected: u64) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let security = Security { cap_add: owned(add), cap_drop: owned(drop), privileged, ..Security::default() };
        assert_eq!(wanted(&security).expect("known names").0, expected);
    }

    #[test]
    fn sets_by_what_is_asked() {
        check(&[], &[], false, DOCKER);
        check(&["NET_ADMIN"], &[], false, DOCKER | 1 << 12);
        check(&["CAP_net_admin"], &["cap_chown"], false, (DOCKER | 1 << 12) & !1);
        check(&[], &["ALL"], false, 0);
        check(&["NET_BIND_SERVICE"], &["all"], false, 1 << 10);
        check(&["ALL"], &[], false, CapSet::ALL.0);
        check(&["ALL"], &["SYS_ADMIN"], false, CapSet::ALL.0 & !(1 << 21));
        check(&[], &[], true, CapSet::ALL.0);
    }

    #[test]
    fn unknown_names_are_refused() {
        let security = Security { cap_add: vec!["NET_ADMINN".to_owned()], ..Security::default() };
        assert_eq!(wanted(&security).expect_err("unknown").to_string(), "unknown capability NET_ADMINN");
    }
}
