//! A profile as it is written.

use serde::Deserialize;

/// A seccomp profile in Docker's format, of which the OCI format is a part.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// For calls that no rule names.
    pub default_action: String,
    /// Error number of that action; EPERM when absent.
    #[serde(default)]
    pub default_errno_ret: Option<u32>,
    /// Architectures it applies to (OCI form); every one that the host runs when empty.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// The same with sub-architectures (Docker form).
    #[serde(default)]
    pub arch_map: Vec<ArchMap>,
    /// `SECCOMP_FILTER_FLAG_*`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Rules; the first that matches decides.
    #[serde(default)]
    pub syscalls: Vec<Rule>,
    /// For supervisors of NOTIFY, which is not supported.
    #[serde(default)]
    pub listener_path: Option<String>,
    /// See `listener_path`.
    #[serde(default)]
    pub listener_metadata: Option<String>,
}

/// An architecture with those whose programs it runs as well.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchMap {
    /// `SCMP_ARCH_*`.
    pub architecture: String,
    /// `SCMP_ARCH_*`.
    #[serde(default)]
    pub sub_architectures: Option<Vec<String>>,
}

/// What is done about some calls.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// One name (old form).
    #[serde(default)]
    pub name: Option<String>,
    /// The names; those an architecture does not have are skipped.
    #[serde(default)]
    pub names: Vec<String>,
    /// `SCMP_ACT_*`.
    pub action: String,
    /// Error number.
    #[serde(default)]
    pub errno_ret: Option<u32>,
    /// Conditions that must all hold.
    #[serde(default)]
    pub args: Option<Vec<Arg>>,
    /// For people.
    #[serde(default)]
    pub comment: Option<String>,
    /// When the rule is there at all.
    #[serde(default)]
    pub includes: Conditions,
    /// When it is not.
    #[serde(default)]
    pub excludes: Conditions,
}

/// Circumstances that rules depend on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conditions {
    /// `CAP_*` of the container.
    #[serde(default)]
    pub caps: Vec<String>,
    /// Architectures by Go's names.
    #[serde(default)]
    pub arches: Vec<String>,
    /// `major.minor` of the kernel. Those that are in use here fulfil every one in Docker's profile (4.8).
    #[serde(default)]
    pub min_kernel: Option<String>,
}

/// A condition on an argument.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// Which, from 0.
    pub index: u32,
    /// Compared with; the mask for `MASKED_EQ`.
    pub value: u64,
    /// The value for `MASKED_EQ`.
    #[serde(default)]
    pub value_two: u64,
    /// `SCMP_CMP_*`.
    pub op: String,
}
