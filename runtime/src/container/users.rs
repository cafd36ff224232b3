//! Who a container runs as: `user[:group]` by name or number, looked up in the image's own passwd and group files.
//!
//! The files are opened with `openat2(RESOLVE_IN_ROOT)`, so a link in an image never leads to the host's.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::config::User;

/// What can be wrong with a user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not in the image.
    #[error("no user {0:?} in the image's /etc/passwd")]
    NoUser(String),
    /// Not in the image.
    #[error("no group {0:?} in the image's /etc/group")]
    NoGroup(String),
    /// Not a number that the kernel takes.
    #[error("{0} is not a valid id")]
    BadId(String),
    /// A file of the image cannot be read.
    #[error("cannot read /{path} of the image")]
    Read {
        /// Which.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Opens a file of a root directory without ever leaving it; `None` when there is none.
pub(crate) fn open_in(root: &Path, path: &str) -> io::Result<Option<File>> {
    let dir = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Not blocking: the path may be a FIFO of a hostile image.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat2(&dir, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
        Ok(fd) => Ok(Some(File::from(fd)).filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))),
        Err(
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::NXIO | rustix::io::Errno::LOOP,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The file as the topmost layer that knows of it has it.
fn read_from(layers: &[PathBuf], path: &'static str) -> Result<String, UserError> {
    let failed = |source| UserError::Read { path, source };
    for layer in layers.iter().rev() {
        if let Some(file) = open_in(layer, path).map_err(failed)? {
            let mut bytes = Vec::new();
            file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        // A whiteout (a character device 0:0) of this layer hides what is below.
        if std::fs::symlink_metadata(layer.join(path)).is_ok() {
            return Ok(String::new());
        }
    }
    Ok(String::new())
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.trim().split(':').collect())
}

fn id(text: &str) -> Result<Option<u32>, UserError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) || text.is_empty() {
        return Ok(None);
    }
    // 4294967295 means "leave as it is" to the kernel.
    text.parse().ok().filter(|&id| id != u32::MAX).map(Some).ok_or_else(|| UserError::BadId(text.to_owned()))
}

/// Whether a user is in the groups of the image that list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memberships {
    /// In none (Kubernetes, `supplementalGroupsPolicy: Strict`).
    None,
    /// Unless a group is given (Docker).
    WithoutGroup,
    /// In all of them (Kubernetes, `supplementalGroupsPolicy: Merge`).
    Always,
}

/// Looks up `user[:group]`: a number need not be in the files; without a group it is the user's own. `extra` are further
/// groups by name or number. An empty `user` is root.
///
/// # Errors
/// Names that the image does not have.
pub fn resolve(layers: &[PathBuf], user: &str, extra: &[String], memberships: Memberships) -> Result<User, UserError> {
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let passwd = read_from(layers, "etc/passwd")?;
    let group = read_from(layers, "etc/group")?;
    let number = id(user_part)?;
    let entry = fields(&passwd).find(|line| {
        line.first() == Some(&user_part) || (number.is_some() && line.get(2).and_then(|n| n.parse().ok()) == number)
    });
    let parse = |at: usize| entry.as_ref().and_then(|line| line.get(at)?.parse::<u32>().ok());
    let uid = match (number, parse(2)) {
        (Some(number), _) => number,
        (None, Some(found)) => found,
        (None, None) => return Err(UserError::NoUser(user_part.to_owned())),
    };
    let gid_of = |name: &str| -> Result<u32, UserError> {
        if let Some(number) = id(name)? {
            return Ok(number);
        }
        fields(&group)
            .find(|line| line.first() == Some(&name))
            .and_then(|line| line.get(2)?.parse().ok())
            .ok_or_else(|| UserError::NoGroup(name.to_owned()))
    };
    let gid = if group_part.is_empty() { parse(3).unwrap_or(0) } else { gid_of(group_part)? };
    let mut additional_gids: Vec<u32> = Vec::new();
    let member = match memberships {
        Memberships::None => false,
        Memberships::WithoutGroup => group_part.is_empty(),
        Memberships::Always => true,
    };
    if member {
        let name = entry.as_ref().and_then(|line| line.first().copied()).filter(|name| !name.is_empty());
        let lists = |line: &Vec<&str>| line.get(3).is_some_and(|members| members.split(',').any(|m| Some(m) == name));
        additional_gids.extend(fields(&group).filter(lists).filter_map(|line| line.get(2)?.parse::<u32>().ok()));
    }
    let manifest_gids = extra.iter().map(|name| gid_of(name)).collect::<Result<Vec<_>, _>>()?;
    additional_gids.extend(&manifest_gids);
    additional_gids.sort_unstable();
    additional_gids.dedup();
    let home = entry.as_ref().and_then(|line| line.get(5)).filter(|home| !home.is_empty()).map(|&home| home.to_owned());
    Ok(User { uid, gid, additional_gids, manifest_gids, home })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn layers() -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let paths: Vec<PathBuf> = ["a", "b"].iter().map(|name| dir.path().join(name)).collect();
        for path in &paths {
            fs::create_dir_all(path.join("etc")).expect("a directory");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n# x\nodd\n";
        fs::write(paths[0].join("etc/passwd"), passwd).expect("a file");
        let group = "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\ndocker:x:20:app\n";
        fs::write(paths[0].join("etc/group"), group).expect("a file");
        (dir, paths)
    }

    /// User, group, further groups, home.
    type Expected<'a> = (u32, u32, &'a [u32], Option<&'a str>);

    #[track_caller]
    fn check(user: &str, extra: &[&str], expected: Result<Expected<'_>, &str>) {
        let (_dir, layers) = layers();
        let extra: Vec<String> = extra.iter().map(|&name| name.to_owned()).collect();
        let got = resolve(&layers, user, &extra, Memberships::WithoutGroup).map_err(|error| error.to_string());
        let expected = expected.map_err(str::to_owned).map(|(uid, gid, groups, home)| User {
            uid,
            gid,
            additional_gids: groups.to_vec(),
            manifest_gids: if extra.is_empty() { Vec::new() } else { vec![20, 77] },
            home: home.map(str::to_owned),
        });
        assert_eq!(got, expected, "{user}");
    }

    #[test]
    fn users_by_name_and_number() {
        check("", &[], Ok((0, 0, &[10], Some("/root"))));
        check("app", &[], Ok((1000, 1001, &[10, 20], Some("/home/app"))));
        check("1000", &[], Ok((1000, 1001, &[10, 20], Some("/home/app"))));
        check("app:wheel", &[], Ok((1000, 10, &[], Some("/home/app"))));
        check("4000", &[], Ok((4000, 0, &[], None)));
        check("4000:4001", &["docker", "77"], Ok((4000, 4001, &[20, 77], None)));
        check("nobody", &[], Err("no user \"nobody\" in the image's /etc/passwd"));
        check("app:none", &[], Err("no group \"none\" in the image's /etc/group"));
        check("4294967295", &[], Err("4294967295 is not a valid id"));
        check("99999999999", &[], Err("99999999999 is not a valid id"));
    }

    #[test]
    fn groups_that_list_a_user_are_joined_by_rule() {
        let (_dir, layers) = layers();
        let groups = |user, rule| resolve(&layers, user, &[], rule).expect("a user").additional_gids;
        for (rule, alone, with_group) in [
            (Memberships::None, &[][..], &[][..]),
            (Memberships::WithoutGroup, &[10, 20], &[]),
            (Memberships::Always, &[10, 20], &[10, 20]),
        ] {
            assert_eq!(groups("app", rule), alone, "{rule:?}");
            assert_eq!(groups("1000:3000", rule), with_group, "{rule:?}");
        }
    }

    #[test]
    fn links_of_an_image_stay_in_it() {
        let (_dir, layers) = layers();
        // Seen from the upper layer, /etc/passwd of the host must not be reached.
        std::os::unix::fs::symlink("/../../../../../../etc/shadow", layers[1].join("etc/passwd")).expect("a link");
        assert!(resolve(&layers, "app", &[], Memberships::Always).is_err());
    }

    #[test]
    fn a_fifo_does_not_block() {
        let (_dir, layers) = layers();
        let path = layers[1].join("etc/passwd");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        assert!(resolve(&layers, "app", &[], Memberships::Always).is_err());
    }
}
