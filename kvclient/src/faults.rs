//! Faults that a test asks a node for: a point at which the process dies, a guarantee that does not hold.
//!
//! "Nothing was lost" proves little unless the same test finds loss once what it tests is switched off. So each
//! guarantee asks here whether it holds, and each step whose interruption matters names itself. Without the feature
//! `faults` both are constants and cost nothing; with it the environment decides, read once:
//!
//! ```text
//! KV_FAULTS = item,item,...
//! off=sync                 the guarantee of this name does not hold
//! crash=log.before_sync    the process aborts when it first comes to this point
//! crash=log.before_sync:7  when it comes there for the seventh time
//! ```
//!
//! Invariant: no release build has them; the feature does not compile without debug assertions.

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!(
    "the feature `faults` switches guarantees off; it is for tests, not for release builds"
);

/// What a test can switch off: the promise that holds as long as it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// What was written to the log is synced before anything is said of it.
    Sync,
    /// An answer leaves after the sync of its record.
    AnswerAfterSync,
    /// A failed write or sync ends the node.
    StopOnStorageError,
    /// A frame's and a snapshot's checksums are compared.
    FrameChecksums,
    /// A stored entry's checksum is compared, and counts and sums with the tables.
    EntryChecksums,
    /// A frame continues the chain of the frame before.
    Chain,
    /// A directory whose data is gone is refused.
    Marker,
    /// One process to a data directory.
    Lock,
    /// A replica whose log has parted, or whose primary is shorter, keeps its data and serves none of it.
    Handshake,
    /// A copy answers nothing before it is complete.
    WholeCopy,
    /// A replica applies every record that it appends to its log.
    ApplyAll,
    /// An acknowledgement counts only from a replica of the map that has what it claims.
    AckCounting,
    /// Running requests are finished before the node ends.
    Drain,
    /// A request id is done once.
    Deduplication,
    /// What web pages, proxies and foreign hosts send is turned away.
    Guards,
    /// Whoever may not do something is refused.
    Tokens,
    /// Sizes and times of requests have bounds.
    Bounds,
    /// What comes from outside stands escaped in logs and pages.
    Escapes,
    /// Room for a log segment is taken from the disk before the segment is written to.
    Reservation,
    /// What has no room in LMDB is refused before it is in the log.
    RefuseWhenFull,
    /// A read of LMDB ends before anything is waited for.
    ShortReads,
    /// LMDB has a slot for each read that can be under way.
    ReaderSlots,
    /// Connections leave descriptors for storage.
    OwnDescriptors,
}

/// Every guarantee by the name that switches it off.
pub const GUARANTEES: &[(&str, Guarantee)] = &[
    ("sync", Guarantee::Sync),
    ("answer_after_sync", Guarantee::AnswerAfterSync),
    ("stop_on_storage_error", Guarantee::StopOnStorageError),
    ("frame_checksums", Guarantee::FrameChecksums),
    ("entry_checksums", Guarantee::EntryChecksums),
    ("chain", Guarantee::Chain),
    ("marker", Guarantee::Marker),
    ("lock", Guarantee::Lock),
    ("handshake", Guarantee::Handshake),
    ("whole_copy", Guarantee::WholeCopy),
    ("apply_all", Guarantee::ApplyAll),
    ("ack_counting", Guarantee::AckCounting),
    ("drain", Guarantee::Drain),
    ("deduplication", Guarantee::Deduplication),
    ("guards", Guarantee::Guards),
    ("tokens", Guarantee::Tokens),
    ("bounds", Guarantee::Bounds),
    ("escapes", Guarantee::Escapes),
    ("reservation", Guarantee::Reservation),
    ("refuse_when_full", Guarantee::RefuseWhenFull),
    ("short_reads", Guarantee::ShortReads),
    ("reader_slots", Guarantee::ReaderSlots),
    ("own_descriptors", Guarantee::OwnDescriptors),
];

/// Every point at which a process can be made to die, by what it has just done or is about to do.
pub const POINTS: &[&str] = &[
    "log.window_written",
    "log.before_write",
    "log.before_sync",
    "log.after_sync",
    "commit.before_publish",
    "commit.before_answer",
    "spare.synced",
    "segment.header_synced",
    "segment.renamed",
    "segment.given_free",
    "flush.before_commit",
    "flush.after_commit",
    "recovery.rewritten",
    "reign.appended",
    "file.written",
    "file.renamed",
    "generation.named",
    "generation.current",
    "snapshot.piece_stored",
    "snapshot.before_force",
    "snapshot.in_force",
    "puller.appended",
];

/// Whether a guarantee does not hold. `false` without the feature `faults`.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn is_off(_: Guarantee) -> bool {
    false
}

/// A point at which the process may have to die. Nothing without the feature `faults`.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn point(_: &'static str) {}

/// What was asked for, for a log line. `None` without the feature `faults`.
#[cfg(not(feature = "faults"))]
pub const fn asked() -> Option<String> {
    None
}

#[cfg(feature = "faults")]
pub use asked_for::{asked, is_off, point};

#[cfg(feature = "faults")]
mod asked_for {
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use super::{GUARANTEES, Guarantee, POINTS};

    /// How long a dying process lets answers leave that should not.
    const LAST_WORDS: Duration = Duration::from_millis(100);

    /// What the environment asks for.
    #[derive(Debug, Default)]
    struct Asked {
        text: String,
        off: Vec<Guarantee>,
        crash: Option<(&'static str, u64)>,
        /// How often the process came to the point of `crash`.
        passed: AtomicU64,
    }

    static ASKED: OnceLock<Asked> = OnceLock::new();

    fn environment() -> &'static Asked {
        ASKED.get_or_init(|| {
            let text = std::env::var("KV_FAULTS").unwrap_or_default();
            // A fault that is not understood would make a test pass that tests nothing.
            Asked::parse(&text).unwrap_or_else(|why| {
                eprintln!("KV_FAULTS: {why}");
                std::process::exit(2)
            })
        })
    }

    impl Asked {
        fn parse(text: &str) -> Result<Self, String> {
            let mut asked = Self {
                text: text.to_owned(),
                ..Self::default()
            };
            for item in text.split(',').filter(|item| !item.is_empty()) {
                match item.split_once('=') {
                    Some(("off", name)) => asked.off.push(guarantee(name)?),
                    Some(("crash", point)) => asked.crash = Some(crash(point)?),
                    _ => return Err(format!("{item:?} is neither off=NAME nor crash=POINT[:N]")),
                }
            }
            Ok(asked)
        }
    }

    fn guarantee(name: &str) -> Result<Guarantee, String> {
        let found = GUARANTEES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, guarantee)| *guarantee)
            .ok_or_else(|| format!("no guarantee is named {name:?}"))
    }

    fn crash(text: &str) -> Result<(&'static str, u64), String> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let point = POINTS.iter().find(|point| **point == name);
        let point = point.ok_or_else(|| format!("no point is named {name:?}"))?;
        let count = count.parse().ok().filter(|&count| count > 0);
        let count = count.ok_or_else(|| format!("{text:?}: how often?"))?;
        Ok((point, count))
    }

    /// Whether a guarantee does not hold.
    pub fn is_off(guarantee: Guarantee) -> bool {
        environment().off.contains(&guarantee)
    }

    /// A point at which the process may have to die.
    pub fn point(name: &'static str) {
        debug_assert!(POINTS.contains(&name), "{name} stands in the list");
        let asked = environment();
        let Some((_, count)) = asked.crash.filter(|(point, _)| *point == name) else {
            return;
        };
        if asked.passed.fetch_add(1, Ordering::Relaxed) + 1 == count {
            eprintln!("KV_FAULTS: dies at {name}");
            if is_off(Guarantee::AnswerAfterSync) {
                // What was answered too early leaves first: that is what a test shall find.
                std::thread::park_timeout(LAST_WORDS);
            }
            std::process::abort();
        }
    }

    /// What was asked for, if anything, for a log line.
    pub fn asked() -> Option<String> {
        let text = &environment().text;
        (!text.is_empty()).then(|| text.clone())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_asked_for_is_understood_or_refused() {
            let asked = Asked::parse("off=sync,crash=log.before_sync:7,off=lock").unwrap();
            assert_eq!(asked.off, [Guarantee::Sync, Guarantee::Lock]);
            assert_eq!(asked.crash, Some(("log.before_sync", 7)));
            assert_eq!(
                Asked::parse("crash=log.before_sync").unwrap().crash,
                Some(("log.before_sync", 1))
            );
            assert_eq!(Asked::parse("").unwrap().crash, None);
            for bad in [
                "sync",
                "off=snyc",
                "crash=nowhere",
                "crash=log.before_sync:0",
                "on=sync",
            ] {
                assert!(Asked::parse(bad).is_err(), "{bad}");
            }
        }
    }
}
