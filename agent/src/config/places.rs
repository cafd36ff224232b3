//! Where the agent of this boot has put containers and their data.
//!
//! The configuration file may be broken, or name other places by now, while the agent goes on as it was. What has to
//! find its containers then asks the record that it left in the run directory.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Loaded, Origin, Settings};

/// The settings that `reload::FIXED` names, but the run directory itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Places {
    data_dir: PathBuf,
    cgroup_parent: String,
    bridge: String,
    subnet: Option<String>,
}

impl Places {
    /// Notes the places of these settings.
    ///
    /// # Errors
    /// The run directory cannot be written.
    pub fn note(settings: &Settings) -> std::io::Result<()> {
        let Settings { data_dir, cgroup_parent, bridge, subnet, .. } = settings.clone();
        crate::record::write(&file(settings), &Self { data_dir, cgroup_parent, bridge, subnet })
    }

    /// Puts the places that the last agent noted into settings. What was given with a command counts more.
    pub fn recall(mut loaded: Loaded) -> Settings {
        let settings = &mut loaded.settings;
        let Some(known) = crate::record::read::<Self>(&file(settings)) else { return loaded.settings };
        let free = |name: &str| !matches!(loaded.origins.get(name), Some(Origin::Flag(_) | Origin::Variable(_)));
        if free("data_dir") {
            settings.data_dir = known.data_dir;
        }
        if free("cgroup_parent") {
            settings.cgroup_parent = known.cgroup_parent;
        }
        if free("bridge") {
            settings.bridge = known.bridge;
        }
        if free("subnet") {
            settings.subnet = known.subnet;
        }
        loaded.settings
    }
}

fn file(settings: &Settings) -> PathBuf {
    settings.run_dir.join("places.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn the_places_of_the_last_agent_are_found_whatever_the_files_say() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let config = dir.path().join("config.toml");
        let run_dir = format!("run_dir = '{}'\n", dir.path().display());
        let recall = |text: &str, flag: Option<&str>| {
            std::fs::write(&config, format!("{run_dir}{text}")).expect("a file");
            let flags = flag.iter().map(|value| ("data_dir".to_owned(), (*value).to_owned())).collect();
            let layers = Layers { config: Some(config.clone()), flags, ..Layers::default() };
            Places::recall(layers.salvage())
        };
        let check = |text: &str, flag: Option<&str>, data_dir: &str, cgroup: &str| {
            let found = recall(text, flag);
            assert_eq!((found.data_dir.to_str(), found.cgroup_parent.as_str()), (Some(data_dir), cgroup), "{text}");
        };
        // No agent has been here in this boot.
        check("data_dir = '/new'", None, "/new", "mainstay");
        check("data_dir = '/new'\nlog_levle = 'info'", None, "/new", "mainstay");
        let text = format!("{run_dir}data_dir = '/srv/m'\ncgroup_parent = 'pods'\n");
        std::fs::write(&config, text).expect("a file");
        let good = Layers { config: Some(config.clone()), ..Layers::default() }.load().expect("it is good");
        Places::note(&good.settings).expect("noted");
        check("data_dir = '/new'", None, "/srv/m", "pods");
        check("data_dir = 5\nlog_levle = 'info'", None, "/srv/m", "pods");
        check("", Some("/mine"), "/mine", "pods");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&file(&good.settings).metadata().expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(file(&good.settings), "damaged").expect("a file");
        check("data_dir = '/new'", None, "/new", "mainstay");
    }
}
