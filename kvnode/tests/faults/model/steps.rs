//! What can happen to a shard, and how it is drawn at random.
//!
//! Steps name keys by number and positions by where they stand in the history, so that a shrunk sequence still makes
//! sense.

use bytes::Bytes;
use kvclient::wire::query::MAX_TTL_MS;
use proptest::{collection::vec, prelude::*};

/// Keys that are written.
pub(super) const KEYS: usize = 10;

/// A value that fits no frame of [`SIZES`](super::node::SIZES).
pub(super) const TOO_LARGE: usize = 14_000;

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Ops of one command, in order.
    Writes(Vec<Asked>),
    /// Ops of which all are done or none.
    Atomic(Vec<Asked>),
    /// One op twice in one command, under one id.
    Twice(Asked),
    /// A request that was done is sent again: the nth from the newest.
    Again(usize),
    /// Another op comes under its id.
    Reused(usize),
    /// Shard time goes on by so many ms.
    Wait(u64),
    /// What has expired is deleted; between looking and deleting something is written.
    Sweep(Vec<Asked>),
    /// Memtables go to LMDB, and log that is not needed any more goes.
    Flush,
    Restart(Who),
    /// As [`Step::Restart`] of the primary; the machine's clock was set back meanwhile.
    RestartInThePast,
    /// The directory as it is, opened again.
    Crash(Who),
    /// The primary dies while it writes this: of the frames in its last segment the rest from one on is missing, that
    /// one torn.
    Torn(Vec<Asked>, Tear),
    /// The replica takes what the log has, or a copy if that is not enough.
    Pull,
    /// A new replica is made by a snapshot, while something is written.
    Snapshot(Vec<Asked>),
    /// The replica becomes the primary, and the primary its replica.
    Promote,
}

impl Step {
    /// What is counted together.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Writes(_) => "writes",
            Self::Atomic(_) => "atomic",
            Self::Twice(_) | Self::Again(_) => "repeated",
            Self::Reused(_) => "id reused",
            Self::Wait(_) => "time passes",
            Self::Sweep(_) => "sweep",
            Self::Flush => "flush and truncation",
            Self::Restart(_) => "restart",
            Self::RestartInThePast => "clock set back",
            Self::Crash(_) => "crash",
            Self::Torn(..) => "torn",
            Self::Pull => "pull",
            Self::Snapshot(_) => "snapshot",
            Self::Promote => "promote",
        }
    }
}

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Primary,
    Replica,
}

/// Where a write tore: a share of the frames, and of the bytes of the first that is not whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tear {
    pub(super) frame: usize,
    pub(super) byte: usize,
}

/// One op.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) key: usize,
    pub(super) what: What,
    pub(super) only_if: Option<OnlyIf>,
    pub(super) caller: Caller,
}

/// Under which id it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Nobody,
    /// One who says nothing of what it still waits for.
    Forgetful,
    /// One who waits for its last few requests.
    Tidy,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Get,
    Put { value: Bytes, ttl_ms: Option<u64> },
    Delete,
    Incr(i64),
    Expire(u64),
    Persist,
}

/// The condition of an op. An entry is that of its key as it is, or one of another key or another time.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnlyIf {
    Absent,
    Exists,
    IsCurrent,
    IsOther,
    DiffersFromCurrent,
    DiffersFromOther,
}

fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => prop_oneof![Just(1_u64), Just(5), Just(50)],
        2 => 1_000..100_000_u64,
        1 => Just(MAX_TTL_MS),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    let number = |number: i64| Bytes::from(number.to_string());
    prop_oneof![
        4 => (-20..20_i64).prop_map(number),
        1 => prop_oneof![Just(i64::MAX), Just(i64::MIN)].prop_map(number),
        3 => (any::<u8>(), 0..300_usize).prop_map(|(byte, len)| vec![byte; len].into()),
        1 => (any::<u8>(), 1_000..1_500_usize).prop_map(|(byte, len)| vec![byte; len].into()),
    ]
}

fn write() -> impl Strategy<Value = What> {
    let put = |value: BoxedStrategy<Bytes>| {
        let ttl = proptest::option::weighted(0.4, ttl());
        (value, ttl).prop_map(|(value, ttl_ms)| What::Put { value, ttl_ms })
    };
    prop_oneof![
        40 => put(value().boxed()),
        1 => put(Just(Bytes::from_static(&[0; TOO_LARGE])).boxed()),
        12 => Just(What::Delete),
        12 => prop_oneof![8 => -9..9_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)].prop_map(What::Incr),
        8 => ttl().prop_map(What::Expire),
        6 => Just(What::Persist),
    ]
}

fn condition() -> impl Strategy<Value = Option<OnlyIf>> {
    let some = prop_oneof![
        Just(OnlyIf::Absent),
        Just(OnlyIf::Exists),
        Just(OnlyIf::IsCurrent),
        Just(OnlyIf::IsOther),
        Just(OnlyIf::DiffersFromCurrent),
        Just(OnlyIf::DiffersFromOther),
    ];
    proptest::option::weighted(0.3, some)
}

fn asked(what: impl Strategy<Value = What>) -> impl Strategy<Value = Asked> {
    let caller = prop_oneof![
        2 => Just(Caller::Nobody),
        2 => Just(Caller::Forgetful),
        1 => Just(Caller::Tidy),
    ];
    let parts = (0..KEYS, what, condition(), caller);
    parts.prop_map(|(key, what, only_if, caller)| Asked {
        key,
        what,
        only_if,
        caller,
    })
}

fn read_or_write() -> impl Strategy<Value = What> {
    prop_oneof![1 => Just(What::Get), 4 => write()]
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![2 => Just(Who::Primary), 1 => Just(Who::Replica)]
}

/// Sequences of steps.
pub(super) fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let few = || vec(asked(write()), 0..4);
    let tear = (any::<usize>(), any::<usize>()).prop_map(|(frame, byte)| Tear { frame, byte });
    let wait = prop_oneof![
        Just(1_u64),
        Just(4),
        Just(5),
        Just(49),
        Just(50),
        Just(1_000),
        Just(60_000)
    ];
    let step = prop_oneof![
        30 => vec(asked(write()), 1..3).prop_map(Step::Writes),
        4 => vec(asked(write()), 8..30).prop_map(Step::Writes),
        10 => vec(asked(read_or_write()), 1..6).prop_map(Step::Atomic),
        3 => asked(write()).prop_map(Step::Twice),
        8 => (0..8_usize).prop_map(Step::Again),
        2 => (0..8_usize).prop_map(Step::Reused),
        10 => wait.prop_map(Step::Wait),
        5 => few().prop_map(Step::Sweep),
        6 => Just(Step::Flush),
        3 => who().prop_map(Step::Restart),
        1 => Just(Step::RestartInThePast),
        4 => who().prop_map(Step::Crash),
        4 => (vec(asked(write()), 1..30), tear).prop_map(|(asked, tear)| Step::Torn(asked, tear)),
        5 => Just(Step::Pull),
        2 => few().prop_map(Step::Snapshot),
        2 => Just(Step::Promote),
    ];
    vec(step, 1..40)
}
