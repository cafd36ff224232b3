//! The protocol against a socket that stands in for the journal.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read as _, Seek as _};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// A fake journal.
struct Fake {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = UnixDatagram::bind(dir.path().join("socket")).expect("the directory is ours");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("the time is not zero");
        Self { socket, dir }
    }

    fn journal(&self) -> Journal {
        Journal::at(&self.dir.path().join("socket")).expect("somebody listens")
    }

    /// The fields of the next entry, read as journald does.
    fn entry(&self) -> BTreeMap<String, String> {
        let (mut buffer, mut space) = (vec![0; 1 << 20], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut passed = RecvAncillaryBuffer::new(&mut space);
        let bytes = &mut [IoSliceMut::new(&mut buffer)];
        let length = recvmsg(&self.socket, bytes, &mut passed, RecvFlags::CMSG_CLOEXEC).expect("an entry comes").bytes;
        let file = passed.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let Some(file) = file else { return fields(&buffer[..length]) };
        assert_eq!(length, 0, "a file comes alone");
        let mut file = File::from(file);
        assert!(file.write_all(b"x").is_err(), "nobody changes it any more");
        let mut bytes = Vec::new();
        file.rewind().expect("it is a file");
        file.read_to_end(&mut bytes).expect("it is memory");
        fields(&bytes)
    }
}

fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n')).expect("a name ends");
        let (name, rest) = bytes.split_at(end);
        let (length, value) = match rest[0] {
            b'=' => (rest.iter().position(|byte| *byte == b'\n').expect("a line ends") - 1, &rest[1..]),
            _ => {
                let (length, value) = rest[1..].split_first_chunk().expect("a length follows");
                (usize::try_from(u64::from_le_bytes(*length)).expect("it is memory"), value)
            }
        };
        assert_eq!(value[length], b'\n');
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("fields are text here");
        let before = fields.insert(text(name), text(&value[..length]));
        assert_eq!(before, None, "each field is there once");
        bytes = &value[length + 1..];
    }
    fields
}

/// What comes of one event, without the place in the code.
#[track_caller]
fn check(emit: impl FnOnce(), expected: &[(&str, &str)]) {
    let fake = Fake::new();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(fake.journal()), emit);
    let mut entry = fake.entry();
    assert!(entry.remove("CODE_FILE").is_some_and(|file| file.ends_with("journal/tests.rs")));
    assert!(entry.remove("CODE_LINE").is_some_and(|line| line.parse::<u32>().is_ok()));
    assert_eq!(entry.remove("SYSLOG_IDENTIFIER").as_deref(), Some("mainstay"));
    let entry: Vec<(&str, &str)> = entry.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(entry, expected);
}

#[test]
fn values_of_a_line_are_fields_and_stand_in_its_text() {
    check(
        || tracing::info!(workload = %"Pod default/web", reason = "Started", "it \"runs\""),
        &[
            ("MAINSTAY_REASON", "Started"),
            ("MAINSTAY_WORKLOAD", "Pod default/web"),
            ("MESSAGE", "it \"runs\" workload=Pod default/web reason=\"Started\""),
            ("PRIORITY", "6"),
        ],
    );
    check(|| tracing::warn!("alone"), &[("MESSAGE", "alone"), ("PRIORITY", "4")]);
    check(|| tracing::error!("worse"), &[("MESSAGE", "worse"), ("PRIORITY", "3")]);
    check(
        || tracing::debug!(pid = 7, up = true, "x"),
        &[("MAINSTAY_PID", "7"), ("MAINSTAY_UP", "true"), ("MESSAGE", "x pid=7 up=true"), ("PRIORITY", "7")],
    );
    check(
        || tracing::error!(error = %"a\nPRIORITY=0\nb", "two\nlines"),
        &[("MAINSTAY_ERROR", "a\nPRIORITY=0\nb"), ("MESSAGE", "two\nlines error=a\nPRIORITY=0\nb"), ("PRIORITY", "3")],
    );
}

#[test]
fn names_of_fields_are_such_as_the_journal_takes() {
    assert_eq!(name("a.b-c"), "MAINSTAY_A_B_C");
    assert_eq!(name("größe"), "MAINSTAY_GR__E");
    assert_eq!(name(&"x".repeat(100)).len(), LONGEST_NAME);
}

#[test]
fn an_entry_too_large_for_a_datagram_comes_as_a_sealed_file() {
    let long = "x".repeat(4 << 20);
    check(|| tracing::info!("{long}"), &[("MESSAGE", &long), ("PRIORITY", "6")]);
}

#[test]
fn a_journal_that_does_not_read_is_not_waited_for_and_told_of_the_gap() {
    let fake = Fake::new();
    let journal = fake.journal();
    journal.socket.set_write_timeout(Some(Duration::from_millis(10))).expect("the time is not zero");
    let line = |text: &str| journal.take(&Entry::new(Level::INFO, text.to_owned()));
    let mut sent = 0;
    while journal.lost.load(Ordering::Relaxed) == 0 {
        line("early");
        sent += 1;
    }
    line("lost as well");
    for _ in 1..sent {
        assert_eq!(fake.entry()["MESSAGE"], "early");
    }
    line("late");
    assert_eq!(fake.entry()["MESSAGE"], "2 log lines before this one were not taken by the journal");
    assert_eq!(fake.entry()["MESSAGE"], "late");
}

#[test]
fn a_journal_started_anew_is_found_and_none_is_no_error() {
    let fake = Fake::new();
    let journal = fake.journal();
    let path = fake.dir.path().join("socket");
    std::fs::remove_file(&path).expect("the directory is ours");
    journal.take(&Entry::new(Level::INFO, "to the stream instead".to_owned()));
    let anew = Fake { socket: UnixDatagram::bind(&path).expect("the name is free"), ..fake };
    journal.take(&Entry::new(Level::INFO, "here again".to_owned()));
    assert_eq!(anew.entry()["MESSAGE"], "here again");
    drop(anew);
    assert!(Journal::at(&path).is_err());
}
