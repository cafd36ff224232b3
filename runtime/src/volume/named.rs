//! Volumes that outlive pods. Nothing but [`remove`], called for a person's command, ever deletes one.

use std::ffi::CStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chownat, fchmod, fchown, fgetxattr, flistxattr, flock, fsetxattr, futimens, mkdirat, mknodat, openat,
    openat2, readlinkat, statat, symlinkat,
};
use serde::{Deserialize, Serialize};

use super::error::{Result, VolumeError, failed};
use super::{mounts, tree};

const RECORD: &str = "volume.json";
const DATA: &str = "data";

/// What is kept beside a volume's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    schema: u32,
    /// Its name, such as `namespace/claim` or `project_volume`.
    pub name: String,
    /// Whether what an image has at the mount path was copied into it, or was not to be: it had data already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Copied>,
}

/// How far copying from an image has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copied {
    /// Begun; when it is found so, it was cut off and is done again.
    Started,
    /// Over.
    Done,
}

/// The directory of a volume's data, made when it is not there: writable for every user, below a directory that only
/// root can enter, since it is not known here as whom containers run.
pub(super) fn prepare(data: &Path, name: &str) -> Result<PathBuf> {
    let dir = directory(data, name)?;
    let content = dir.join(DATA);
    let volumes = data.join("volumes");
    fs::create_dir_all(&volumes)
        .and_then(|()| fs::set_permissions(&volumes, fs::Permissions::from_mode(0o700)))
        .map_err(failed("set the mode of", &volumes))?;
    if content.is_dir() && dir.join(RECORD).exists() {
        return Ok(content);
    }
    fs::create_dir_all(&dir).map_err(failed("create directory", &dir))?;
    if !content.exists() {
        fs::create_dir(&content)
            .and_then(|()| fs::set_permissions(&content, fs::Permissions::from_mode(0o777)))
            .map_err(failed("create directory", &content))?;
    }
    if !dir.join(RECORD).exists() {
        write_record(&dir, &VolumeRecord { schema: 1, name: name.to_owned(), copied: None })?;
    }
    Ok(content)
}

/// Every volume there is a record of.
///
/// # Errors
/// When the directory of volumes cannot be read. A volume whose record cannot be read is left out.
pub fn list(data: &Path) -> Result<Vec<VolumeRecord>> {
    let volumes = data.join("volumes");
    let entries = match fs::read_dir(&volumes) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("read directory", &volumes))?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let dir = entry.map_err(failed("read directory", &volumes))?.path();
        match read_record(&dir) {
            Ok(record) => records.push(record),
            Err(error) => tracing::warn!(path = %dir.display(), %error, "volume record ignored"),
        }
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

/// Where a volume's data is; for showing it and for measuring it.
///
/// # Errors
/// When the name cannot be one.
pub fn path(data: &Path, name: &str) -> Result<PathBuf> {
    Ok(directory(data, name)?.join(DATA))
}

/// Deletes a volume with its data, for good. Gone already is a success.
///
/// # Errors
/// When it is mounted somewhere in this mount namespace, or cannot be removed.
pub fn remove(data: &Path, name: &str) -> Result<()> {
    let dir = directory(data, name)?;
    if mounts::below(&dir).map_err(failed("read the mounts below", &dir))?.next().is_some() {
        return Err(VolumeError::Busy(name.to_owned()));
    }
    tree::remove(&dir).map_err(failed("remove", &dir))
}

/// Copies what an image has at a path into a volume that is still empty, with owners, modes, times and extended
/// attributes, and gives the volume's top those of the image's directory (Docker's rule for named volumes). A volume
/// with data in it is never changed. A copy that was cut off is completed by the next call.
///
/// `image` is the image's mounted root; the path is resolved inside it.
///
/// # Errors
/// When something cannot be read or written. The volume stays usable, and the next call tries again.
pub fn copy_up(data: &Path, name: &str, image: &Path, path: &str) -> Result<()> {
    let dir = directory(data, name)?;
    let content = prepare(data, name)?;
    // Two containers may start with one new volume.
    let lock = tree::open_root(&dir).map_err(failed("open", &dir))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(failed("lock", &dir))?;
    let mut record = read_record(&dir).map_err(failed("read the record of", &dir))?;
    match record.copied {
        Some(Copied::Done) => return Ok(()),
        Some(Copied::Started) => tree::clear(&content).map_err(failed("empty", &content))?,
        None if !is_empty(&content).map_err(failed("read directory", &content))? => {
            record.copied = Some(Copied::Done);
            return write_record(&dir, &record);
        }
        None => {
            record.copied = Some(Copied::Started);
            write_record(&dir, &record)?;
        }
    }
    copy(image, path, &content).map_err(failed("copy the image's files into", &content))?;
    record.copied = Some(Copied::Done);
    write_record(&dir, &record)
}

/// Directory names are the volume's name with everything unusual as %XX, so that no name leads elsewhere and no two
/// names share a directory.
fn directory(data: &Path, name: &str) -> Result<PathBuf> {
    let refused = |why| VolumeError::Refused { what: "volume name", value: name.to_owned(), why };
    if name.is_empty() {
        return Err(refused("it is empty"));
    }
    let mut encoded = String::new();
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            b'.' if at > 0 => encoded.push('.'),
            other => encoded.push_str(&format!("%{other:02x}")),
        }
    }
    if encoded.len() > 255 {
        return Err(refused("it is too long for a directory name"));
    }
    Ok(data.join("volumes").join(encoded))
}

fn read_record(dir: &Path) -> io::Result<VolumeRecord> {
    Ok(serde_json::from_slice(&fs::read(dir.join(RECORD))?)?)
}

fn write_record(dir: &Path, record: &VolumeRecord) -> Result<()> {
    let write = || {
        let temporary = dir.join("volume.json.tmp");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(RECORD))?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(failed("write the record of", dir))
}

fn is_empty(path: &Path) -> io::Result<bool> {
    // A volume on a file system of its own has this from the start.
    let foreign = fs::read_dir(path)?.find(|e| e.as_ref().map_or(true, |e| e.file_name() != "lost+found"));
    Ok(foreign.transpose()?.is_none())
}

fn copy(image: &Path, path: &str, content: &Path) -> io::Result<()> {
    let root = openat(CWD, image, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let from = match openat2(&root, path, flags, Mode::empty(), inside) {
        // The image has nothing there, or a file: nothing to copy.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(()),
        other => other?,
    };
    copy_directory(&from, &tree::open_root(content)?)
}

/// Copies a directory's content, then its own owner, mode and times. Images are trees of bounded depth that we
/// unpacked ourselves, and nothing else writes here yet.
fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let (read, nofollow) = (OFlags::RDONLY | OFlags::CLOEXEC, OFlags::NOFOLLOW);
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let flags = read | OFlags::DIRECTORY | nofollow;
                copy_directory(&openat(from, name, flags, Mode::empty())?, &openat(to, name, flags, Mode::empty())?)?;
            }
            FileType::RegularFile => {
                let source = openat(from, name, read | nofollow, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | nofollow;
                let target = openat(to, name, create, Mode::RUSR | Mode::WUSR)?;
                let (mut source, mut target) = (fs::File::from(source), fs::File::from(target));
                io::copy(&mut source, &mut target)?;
                copy_attributes(&source, &target, &stat)?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
                let (uid, gid) = owner(&stat);
                chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
                let (uid, gid) = owner(&stat);
                chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // Sockets are useless without their program.
            _ => {}
        }
    }
    copy_attributes(from, to, &statat(from, c"", AtFlags::EMPTY_PATH)?)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn copy_attributes(from: impl AsFd, to: impl AsFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(&to, uid, gid)?;
    fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(&from, &to)?;
    let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(&to, &times)?)
}

fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0; 64 * 1024];
    let length = match flistxattr(&from, &mut names[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    names.truncate(length);
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = std::ffi::OsStr::from_bytes(name);
        // Those of overlay file systems say how layers are stacked, and nothing about the file.
        if name.as_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = fgetxattr(&from, name, &mut value[..])?;
        match fsetxattr(&to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty()) {
            // The volume's file system does not know them, or a security module decides itself.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use super::*;

    #[test]
    fn names_never_lead_elsewhere_or_collide() {
        let data = Path::new("/d");
        for (name, expected) in [
            ("project_data", Some("/d/volumes/project_data")),
            ("default/claim", Some("/d/volumes/default%2fclaim")),
            ("..", Some("/d/volumes/%2e.")),
            ("../../etc", Some("/d/volumes/%2e.%2f..%2fetc")),
            ("a%2fb", Some("/d/volumes/a%252fb")),
            ("", None),
        ] {
            assert_eq!(directory(data, name).ok().as_deref(), expected.map(Path::new), "{name}");
        }
        assert!(directory(data, &"x".repeat(300)).is_err());
    }

    #[test]
    fn an_empty_volume_gets_the_images_files_once() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: changing owners needs root");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let (data, image) = (dir.path().join("data"), dir.path().join("image"));
        fs::create_dir_all(image.join("srv/www/sub")).expect("made");
        fs::write(image.join("srv/www/sub/page"), "hello").expect("written");
        fs::write(image.join("secret"), "of the image").expect("written");
        symlink("sub/page", image.join("srv/www/link")).expect("made");
        // Absolute in the image, never on the host.
        symlink("/srv/www", image.join("var")).expect("made");
        chown(image.join("srv/www"), Some(33), Some(34)).expect("root may");
        chown(image.join("srv/www/sub/page"), Some(33), Some(34)).expect("root may");
        fs::set_permissions(image.join("srv/www"), fs::Permissions::from_mode(0o750)).expect("own directory");
        xattr(&image.join("srv/www/sub/page"));

        let content = prepare(&data, "p_v").expect("made");
        copy_up(&data, "p_v", &image, "/var").expect("copied");
        let top = fs::metadata(&content).expect("there");
        assert_eq!((top.uid(), top.gid(), top.mode() & 0o7777), (33, 34, 0o750));
        let page = fs::metadata(content.join("sub/page")).expect("copied");
        let original = fs::metadata(image.join("srv/www/sub/page")).expect("there");
        assert_eq!((page.uid(), page.gid(), page.mtime_nsec()), (33, 34, original.mtime_nsec()));
        assert_eq!(fs::read_to_string(content.join("link")).expect("a link inside"), "hello");
        let opened = fs::File::open(content.join("sub/page")).expect("copied");
        let mut value = [0; 8];
        assert_eq!(fgetxattr(&opened, "user.x", &mut value[..]).ok(), xattr_works(dir.path()).then_some(1));

        fs::remove_file(content.join("link")).expect("there");
        copy_up(&data, "p_v", &image, "/var").expect("nothing to do");
        assert!(!content.join("link").exists(), "the volume is the user's now");
        assert_eq!(list(&data).expect("readable").into_iter().map(|r| r.name).collect::<Vec<_>>(), ["p_v"]);
    }

    fn xattr(path: &Path) {
        let _ = rustix::fs::setxattr(path, "user.x", b"y", XattrFlags::empty());
    }

    fn xattr_works(dir: &Path) -> bool {
        let path = dir.join("probe");
        fs::write(&path, "").expect("written");
        rustix::fs::setxattr(&path, "user.x", b"y", XattrFlags::empty()).is_ok()
    }

    #[test]
    fn data_that_is_there_is_never_changed_and_a_cut_off_copy_is_done_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, image) = (dir.path().join("data"), dir.path().join("image"));
        fs::create_dir_all(image.join("d")).expect("made");
        fs::write(image.join("d/file"), "image").expect("written");
        let content = prepare(&data, "used").expect("made");
        fs::write(content.join("mine"), "x").expect("written");
        copy_up(&data, "used", &image, "/d").expect("nothing to do");
        assert!(!content.join("file").exists());

        let content = prepare(&data, "cut").expect("made");
        let record = VolumeRecord { schema: 1, name: "cut".to_owned(), copied: Some(Copied::Started) };
        write_record(&data.join("volumes/cut"), &record).expect("written");
        fs::write(content.join("half"), "x").expect("written");
        copy_up(&data, "cut", &image, "/d").expect("copied");
        assert!(content.join("file").exists() && !content.join("half").exists());

        copy_up(&data, "none", &image, "/not/there").expect("nothing to copy");
        copy_up(&data, "none", &image, "/../../..").expect("stays in the image");
    }

    #[test]
    fn only_an_explicit_call_removes_a_volume() {
        let dir = tempfile::tempdir().expect("a directory");
        let content = prepare(dir.path(), "ns/claim").expect("made");
        fs::write(content.join("file"), "x").expect("written");
        assert_eq!(prepare(dir.path(), "ns/claim").expect("there"), content);
        remove(dir.path(), "ns/claim").expect("there");
        assert!(!content.exists());
        remove(dir.path(), "ns/claim").expect("gone already");
    }
}
