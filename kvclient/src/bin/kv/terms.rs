//! Options that several commands have in common, and how times are typed.

use std::time::Duration;

use clap::Args;
use kvclient::{Ack, wire::query::parse_duration_ms};

/// Who must have a write.
#[derive(Debug, Args)]
pub(crate) struct AckArgs {
    /// Whose disks it must be on: primary, so many replicas (1, 2 ...), majority, all [default: primary]
    ///
    /// majority is more than half of the shard's nodes, the primary counted. With too few replicas there nothing is
    /// written (exit 4); if they do not have it in time, it is on the primary and they may have it yet (exit 5).
    #[arg(long, value_name = "WHO", value_parser = who)]
    pub(crate) ack: Option<Who>,
}

/// Who must have synced a write; `None`: the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who(pub(crate) Option<Ack>);

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let ms = parse_duration_ms(text);
    ms.map(Duration::from_millis).ok_or_else(|| {
        "write a whole number > 0 and its unit ms, s, m, h or d, like 500ms or 90s".to_owned()
    })
}

fn who(text: &str) -> Result<Who, String> {
    Ack::from_text(text).map(Who).ok_or_else(|| {
        "write primary, majority, all, or a number of replicas from 1 to 253".to_owned()
    })
}
