//! Options that several commands have in common, and how times are typed.

use std::time::{Duration, SystemTime};

use clap::Args;
use kvclient::{Ack, Session, rfc3339, wire::query::parse_duration_ms};

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

/// A moment in the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Shards that are not in it: before their first record.
    Positions(Session),
    Time(SystemTime),
}

/// Reads a moment: a token, a time, or how long ago.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(session) = Session::from_token(text) {
        return Ok(Moment::Positions(session));
    }
    if let Some(time) = rfc3339::parse(text) {
        return Ok(Moment::Time(time));
    }
    let ago = duration(text).ok();
    ago.and_then(|ago| SystemTime::now().checked_sub(ago))
        .map(Moment::Time)
        .ok_or_else(|| {
            "write a token such as kv1_0.3.1207 (kv watch prints them), a time such as 2026-11-26T12:05:09Z, or how \
             long ago, such as 10m"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let session = "kv1_0.1.5".parse().expect("a token");
        assert_eq!(moment("kv1_0.1.5"), Ok(Moment::Positions(session)));
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Ok(Moment::Time(time)));
        let Ok(Moment::Time(ago)) = moment("10m") else {
            panic!("a time");
        };
        let since = ago.elapsed().expect("in the past");
        assert!((600..660).contains(&since.as_secs()), "{since:?}");
        for bad in ["", "yesterday", "10", "kv2_0.1.5"] {
            assert!(moment(bad).is_err(), "{bad:?}");
        }
    }
}
