//! Every code a diagnostic can carry, with a sentence that says when. Codes are stable: one is never used again
//! for something else.

/// A code and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Such as `M0012`.
    pub code: &'static str,
    /// Short name for machines (SARIF rule name).
    pub name: &'static str,
    /// When it is given, in one sentence.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $short:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// All codes in order.
        pub const ALL: &[Code] = &[$(Code { code: $code, name: $short, meaning: $meaning }),*];
    };
}

codes! {
    SYNTAX = "M0001", "syntax", "The text is not valid YAML, JSON or TOML.";
    ENCODING = "M0002", "encoding", "The file is not UTF-8 text.";
    TOO_LARGE = "M0003", "too-large", "A limit on file size, nesting, number of values or alias expansion is exceeded.";
    DUPLICATE_KEY = "M0004", "duplicate-key", "A mapping has the same key twice.";
    BAD_KEY = "M0005", "bad-key", "A mapping has a key that is not text.";
    BAD_ALIAS = "M0006", "bad-alias", "An alias or a merge key refers to something it cannot use.";
    TEMPLATE = "M0007", "template", "The file is a template (Helm, Go, Jinja) that must be rendered first.";
    TAG = "M0008", "tag", "A YAML tag has no meaning here.";
    NOT_A_MANIFEST = "M0009", "not-a-manifest", "The document is neither a Kubernetes object nor a Compose file.";
    MISSING_HEADER = "M0010", "missing-header", "An object lacks `apiVersion` or `kind`, or they are not text.";
    WRONG_TYPE = "M0011", "wrong-type", "A field holds another type of value than it takes.";
    UNKNOWN_FIELD = "M0012", "unknown-field", "The object has no such field.";
    MISSING_FIELD = "M0013", "missing-field", "A required field is missing or empty.";
    BAD_VALUE = "M0014", "bad-value", "A value is not one of those that are allowed, or has the wrong form.";
    OUT_OF_RANGE = "M0015", "out-of-range", "A number is outside its range.";
    BAD_NAME = "M0016", "bad-name", "A name, label or annotation breaks the naming rules of Kubernetes.";
    BAD_QUANTITY = "M0017", "bad-quantity", "A quantity such as `500m` or `128Mi` is malformed or out of range.";
    DUPLICATE_ENTRY = "M0018", "duplicate-entry", "Two entries of a list have the same name, path or port.";
    EXACTLY_ONE = "M0019", "exactly-one", "Of several fields exactly one must be set.";
    CONFLICT = "M0020", "conflict", "Two fields contradict each other.";
    BAD_REFERENCE = "M0021", "bad-reference", "A field refers to something that the same object does not have.";
    SELECTOR = "M0022", "selector", "A selector is missing, malformed or does not match the pod template.";
    BAD_IMAGE = "M0023", "bad-image", "An image reference is malformed.";
    BAD_SCHEDULE = "M0024", "bad-schedule", "A cron schedule or time zone is malformed.";
    BAD_BASE64 = "M0025", "bad-base64", "Data that must be base64 is not.";
    NO_EFFECT = "M0030", "no-effect", "The field is accepted and has no effect on a single host.";
    REJECTED_FIELD = "M0031", "rejected-field", "The field asks for something that only a cluster, or another system, has.";
    REJECTED_KIND = "M0032", "rejected-kind", "The kind is only meaningful in a cluster.";
    REMOVED_API = "M0033", "removed-api", "The API version was removed from Kubernetes.";
    UNKNOWN_KIND = "M0034", "unknown-kind", "The kind is not known.";
    REJECTED_VOLUME = "M0035", "rejected-volume", "The volume type needs a cluster.";
    REJECTED_RESOURCE = "M0036", "rejected-resource", "An extended resource names no devices of this host.";
    REJECTED_WINDOWS = "M0037", "rejected-windows", "The pod is meant for Windows.";
    DEPRECATED = "M0038", "deprecated", "The form is accepted but discouraged.";
    DUPLICATE_OBJECT = "M0040", "duplicate-object", "Two documents describe the same object.";
    MISSING_REFERENCE = "M0041", "missing-reference", "An object that is referred to is not in the sources.";
    MISSING_KEY = "M0042", "missing-key", "A ConfigMap or Secret lacks the key that is referred to.";
    PORT_CLASH = "M0043", "port-clash", "Two pods want the same port of the host.";
    SELECTS_NOTHING = "M0044", "selects-nothing", "The selector of a Service matches no pod of the sources.";
    SELECTS_FOREIGN = "M0045", "selects-foreign", "Two controllers have the same selector.";
    NODE_SELECTOR = "M0046", "node-selector", "The node does not have the labels that the pod asks for.";
    DEPENDENCY_CYCLE = "M0047", "dependency-cycle", "Objects depend on each other in a circle.";
    UNREADABLE = "M0048", "unreadable", "A file or directory cannot be read.";
    ENCRYPTED = "M0049", "encrypted", "A manifest is encrypted: as an error it cannot be opened, as a warning it was not.";
    NAMED_RUNTIME = "M0050", "named-runtime", "The pod names a runtime; only the agent's configuration tells whether there is one.";
    BAD_INTERPOLATION = "M0060", "bad-interpolation", "A `$` in a Compose value starts no variable: an error for `${`, otherwise a warning.";
    UNSET_VARIABLE = "M0061", "unset-variable", "A variable in a Compose file has neither a value nor a default.";
    REQUIRED_VARIABLE = "M0062", "required-variable", "A variable that a Compose file requires (`${V:?}`) has no value.";
    MISSING_FILE = "M0063", "missing-file", "A file that a Compose file refers to does not exist.";
    BAD_ENV_FILE = "M0064", "bad-env-file", "A file with variables is malformed.";
    BAD_EXTENDS = "M0065", "bad-extends", "A service cannot extend what it names.";
    BAD_INCLUDE = "M0066", "bad-include", "A Compose file cannot be included, or declares what another one declares otherwise.";
    BAD_MERGE = "M0067", "bad-merge", "Two Compose files have values at one place that cannot be merged.";
    NO_BUILD = "M0068", "no-build", "A service can only be built, and images are not built here.";
    DISABLED_SERVICE = "M0069", "disabled-service", "A service depends on one that its profiles disable.";
}

/// What a code means.
#[must_use]
pub fn meaning(code: &str) -> Option<&'static Code> {
    ALL.iter().find(|entry| entry.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ordered_and_explained() {
        for pair in ALL.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} and {}", pair[0].code, pair[1].code);
            assert_ne!(pair[0].name, pair[1].name);
        }
        for code in ALL {
            assert!(code.code.len() == 5 && code.code.starts_with('M'), "{}", code.code);
            assert!(code.meaning.ends_with('.') && code.meaning.len() > 20, "{}", code.code);
            assert_eq!(ALL.iter().filter(|other| other.name == code.name).count(), 1, "{}", code.name);
        }
        assert!(meaning(UNKNOWN_FIELD).is_some());
    }
}
