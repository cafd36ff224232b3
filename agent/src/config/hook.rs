//! `[sync_hook]`: where others may say that something has changed.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::values::Input;

/// A listener that has every source asked at once. It never holds the secret, only the name of a file with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncHook {
    /// Where requests come in: `POST /sync`. Port 0 takes a free one, which is then written to `<run_dir>/hook.addr`.
    pub listen: SocketAddr,
    /// File with the secret that a request has to know, or `credential:NAME`.
    pub secret_file: PathBuf,
}

/// Reads the table; in text it is TOML's inline table.
pub(super) fn read(input: Input<'_>) -> Result<SyncHook, String> {
    let told = |error: toml::de::Error| error.message().to_owned();
    let hook: SyncHook = match input {
        Input::Toml(value) => value.clone().try_into().map_err(told)?,
        Input::Text(text) => {
            SyncHook::deserialize(toml::de::ValueDeserializer::parse(text).map_err(told)?).map_err(told)?
        }
    };
    if crate::credential::is_valid(&hook.secret_file) {
        Ok(hook)
    } else {
        Err("expected an absolute path or credential:NAME in `secret_file`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{Input, read};

    #[test]
    fn what_is_a_hook() {
        let check = |text: &str, want: Option<&str>| match (read(Input::Text(text)), want) {
            (Ok(_), None) => {}
            (Err(error), Some(want)) => assert!(error.contains(want), "{text}: {error}"),
            (read, want) => panic!("{text}: {read:?} instead of {want:?}"),
        };
        check("{ listen = '0.0.0.0:9642', secret_file = '/etc/mainstay/hook' }", None);
        check("{ listen = '[::1]:9642', secret_file = 'credential:hook' }", None);
        check("{ listen = '0.0.0.0:9642' }", Some("missing field `secret_file`"));
        check("{ listen = '9642', secret_file = '/h' }", Some("invalid socket address"));
        check("{ listen = '0.0.0.0:9642', secret_file = 'h' }", Some("absolute path"));
        check("{ listen = '0.0.0.0:9642', secret_file = '/h', secret = 'x' }", Some("unknown field"));
        check("9642", Some("invalid type"));
    }
}
