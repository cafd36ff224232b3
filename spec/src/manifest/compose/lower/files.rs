//! `configs` and `secrets` of a service: single files at their targets.

use super::Lower;
use super::top::{CONTENT_KEY, Content};
use crate::codes;
use crate::manifest::compose::tree::{Tree, Val, join_key};
use crate::pod::{ContainerSpec, FileItem, FilesSource, FilesVolume, PodSpec, Volume, VolumeMount, VolumeSource};

/// Mode of a file without one of its own (Compose specification, "configs").
const MODE: u32 = 0o444;

impl Lower<'_, '_> {
    pub(super) fn file_mounts(&mut self, tree: &Tree, path: &str, spec: &mut PodSpec, container: &mut ContainerSpec) {
        for kind in ["configs", "secrets"] {
            for (index, (item, path)) in tree.items_of(kind, path).into_iter().enumerate() {
                self.file_mount(kind, index, item, &path, spec, container);
            }
        }
    }

    fn file_mount(
        &mut self,
        kind: &'static str,
        index: usize,
        item: &Tree,
        path: &str,
        spec: &mut PodSpec,
        container: &mut ContainerSpec,
    ) {
        let (source, at) = match &item.val {
            Val::Str(name) => (name.clone(), item),
            Val::Map(_) => match item.get("source") {
                Some(at) => (at.text().unwrap_or_default(), at),
                None => {
                    self.sink().error(codes::MISSING_FIELD, item, path, "the field `source` is missing");
                    return;
                }
            },
            _ => return,
        };
        let declared = self.model.get(kind).and_then(Tree::map);
        if !declared.is_some_and(|map| map.contains_key(&source)) {
            let known: Vec<String> = declared.map(|map| map.keys().cloned().collect()).unwrap_or_default();
            self.undefined(kind.trim_end_matches('s'), &source, at, path, &known);
            return;
        }
        let directory = if kind == "configs" { "" } else { "/run/secrets" };
        let target = match item.text_of("target") {
            None => format!("{directory}/{source}"),
            Some(target) if target.starts_with('/') => target.to_owned(),
            Some(target) => format!("{directory}/{target}"),
        };
        let mode = match item.get("mode") {
            Some(mode) => self.file_mode(mode, &join_key(path, "mode")),
            None => None,
        };
        let owner = |key: &str| item.text_of(key).map(|text| (text.to_owned(), text.parse::<u32>().ok()));
        let (uid, gid) = (owner("uid"), owner("gid"));
        for (key, value) in [("uid", &uid), ("gid", &gid)] {
            if let Some((text, None)) = value {
                let at = item.get(key).unwrap_or(item);
                let message = format!("`{text}` is not a numeric id");
                self.sink().error(codes::BAD_VALUE, at, &join_key(path, key), message);
            }
        }
        let name = format!("{}-{index}", kind.trim_end_matches('s'));
        match self.content(kind, &source) {
            Content::Directory(path) => {
                spec.volumes.push(Volume { name: name.clone(), source: VolumeSource::Bind { path, create: false } });
                container.mounts.push(VolumeMount {
                    volume: name,
                    path: target,
                    read_only: true,
                    ..VolumeMount::default()
                });
                return;
            }
            Content::Bytes(bytes) if kind == "configs" => self.keep_config(&source, bytes),
            Content::Bytes(bytes) => self.keep_secret(&source, bytes),
            Content::Absent => {}
        }
        let object = self.object_name(kind, &source);
        let file = target.rsplit('/').next().unwrap_or(&source).to_owned();
        let items = vec![FileItem { key: CONTENT_KEY.to_owned(), path: file.clone(), mode }];
        let files = if kind == "configs" {
            FilesSource::ConfigMap { name: object, optional: false, items }
        } else {
            FilesSource::Secret { name: object, optional: false, items }
        };
        let source = VolumeSource::Files(FilesVolume {
            default_mode: Some(MODE),
            sources: vec![files],
            uid: uid.and_then(|(_, id)| id),
            gid: gid.and_then(|(_, id)| id),
        });
        spec.volumes.push(Volume { name: name.clone(), source });
        container.mounts.push(VolumeMount {
            volume: name,
            path: target,
            read_only: true,
            sub_path: Some(file),
            ..VolumeMount::default()
        });
    }
}
