//! The record of a run: what a node did to its files, and what it told others meanwhile, in order.
//!
//! `recorder.c` writes it and gives its byte table. It is compiled when the test runs, and preloaded into the node.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use kvclient::position::Seq;

use crate::support::cluster::Node;

const SOURCE: &str = include_str!("recorder.c");
const HEAD_BYTES: usize = 24;

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The process began; descriptors of an earlier one mean nothing.
    Start,
    Open {
        fd: i32,
        flags: i64,
        path: PathBuf,
    },
    Write {
        fd: i32,
        at: usize,
        bytes: Vec<u8>,
    },
    Sync {
        fd: i32,
    },
    Length {
        fd: i32,
        bytes: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Mkdir {
        path: PathBuf,
    },
    /// Something left that says that this seq is durable.
    Promised(Seq),
}

/// The compiled recorder, and where it writes.
pub(super) struct Recorder {
    library: PathBuf,
    record: PathBuf,
}

impl Recorder {
    /// Compiles it into `dir`; `None` if there is no C compiler.
    pub(super) fn compile(dir: &Path) -> Option<Self> {
        let (source, library) = (dir.join("recorder.c"), dir.join("recorder.so"));
        std::fs::write(&source, SOURCE).expect("a file");
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .output()
            .ok()?;
        assert!(output.status.success(), "{output:?}");
        let record = dir.join("record");
        Some(Self { library, record })
    }

    /// From its next start on, the node is recorded.
    pub(super) fn watch(&self, node: &Node) {
        let library = format!("LD_PRELOAD={}", self.library.display());
        let record = format!("KV_RECORD={}", self.record.display());
        let root = format!("KV_RECORD_ROOT={}", node.data.display());
        node.set_wrapper(&["env", &library, &record, &root]);
    }

    /// What was recorded.
    pub(super) fn events(&self) -> Vec<Event> {
        let bytes = std::fs::read(&self.record).expect("a record");
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            events.extend(next(&mut rest));
        }
        events
    }
}

/// What a node did that makes a crash interesting, counted.
pub(super) fn deeds(events: &[Event]) -> String {
    let count = |what: fn(&Event) -> bool| events.iter().filter(|event| what(event)).count();
    let begun = count(|event| match event {
        Event::Rename { to, .. } => {
            let name = to.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".seg") && !name.starts_with("spare-")
        }
        _ => false,
    });
    let windows =
        count(|event| matches!(event, Event::Write { bytes, .. } if bytes.starts_with(b"KVWN")));
    let starts = count(|event| *event == Event::Start);
    let syncs = count(|event| matches!(event, Event::Sync { .. }));
    format!(
        "{starts} starts, {begun} segments begun, {windows} appends of several frames, {syncs} syncs"
    )
}

/// Takes one record off; what says nothing is left out.
fn next(rest: &mut &[u8]) -> Option<Event> {
    let (head, behind) = rest.split_at(HEAD_BYTES);
    let field = |at: usize| u32::from_ne_bytes(*head[at..].first_chunk().expect("four bytes"));
    let size = |at: usize| field(at) as usize;
    let number = i64::from_ne_bytes(*head[8..].first_chunk().expect("eight bytes"));
    let (one, behind) = behind.split_at(size(16));
    let (two, behind) = behind.split_at(size(20));
    *rest = behind;
    let path = |bytes: &[u8]| PathBuf::from(String::from_utf8(bytes.to_vec()).expect("UTF-8"));
    let length = || usize::try_from(number).expect("a length");
    let fd = field(4).cast_signed();
    Some(match field(0) {
        0 => Event::Start,
        1 => Event::Open {
            fd,
            flags: number,
            path: path(one),
        },
        2 => Event::Write {
            fd,
            at: length(),
            bytes: one.to_vec(),
        },
        3 => Event::Sync { fd },
        4 => Event::Length {
            fd,
            bytes: length(),
        },
        5 => Event::Rename {
            from: path(one),
            to: path(two),
        },
        6 => Event::Unlink { path: path(one) },
        7 => Event::Mkdir { path: path(one) },
        8 => Event::Promised(promised(one)?),
        other => panic!("a record of kind {other}"),
    })
}

/// The seq that a primary's answer or a replica's pull calls durable.
fn promised(sent: &[u8]) -> Option<Seq> {
    let text = String::from_utf8_lossy(sent).to_ascii_lowercase();
    let after = |name: &str| text.split_once(name).map(|(_, rest)| rest.to_owned());
    let number = match after("get /log?after=") {
        Some(pull) => pull,
        None => after("kv-position: ")?.split_once('.')?.1.to_owned(),
    };
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|&seq| seq > 0)
}

#[test]
fn promises_are_found_in_what_is_sent() {
    for (sent, seq) in [
        (
            "HTTP/1.1 204 No Content\r\nKv-Position: 3.17\r\nx: y",
            Some(17),
        ),
        ("GET /log?after=21&max_bytes=7 HTTP/1.1", Some(21)),
        ("GET /log?after=0&max_bytes=7 HTTP/1.1", None),
        ("HTTP/1.1 503 Service Unavailable\r\n", None),
    ] {
        assert_eq!(promised(sent.as_bytes()), seq, "{sent}");
    }
}
