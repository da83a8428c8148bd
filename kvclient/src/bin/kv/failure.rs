//! Why a command failed, told in one line.
//!
//! For a person a line that begins with `kv:`; with `--json` an object, its fields those of [`kvclient::Error`].

use std::{error::Error as _, io, path::Path};

use kvclient::{ErrorKind, Outcome, attempt::AttemptError, backup::BackupError, wire::line::Line};

use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed makes no sense; says what would.
    Usage(String),
    /// An op failed.
    Op(Box<kvclient::Error>),
    /// A backup cannot be written, read or restored.
    Backup(Box<BackupError>),
    /// Something on this machine: a disk that is full, a signal that cannot be received.
    Local(String),
    /// Nobody reads the output any more. No failure of this program; it just ends.
    Closed,
}

impl Failure {
    /// Standard output cannot be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Local(format!("cannot write to standard output: {error}")),
        }
    }

    /// A file that was named cannot be used.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        Self::Usage(format!("{}: {error}", path.display()))
    }

    /// The same, met only after the op was done.
    pub(crate) fn afterwards(self) -> Self {
        match self {
            Self::Usage(text) => Self::Local(text),
            other => other,
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Wrong,
            Self::Op(error) => Exit::of(error.kind(), error.outcome()),
            Self::Backup(error) => backup_exit(error),
            Self::Local(_) => Exit::Failed,
            Self::Closed => Exit::Done,
        }
    }

    /// What there is to say, without a line end; nothing if nobody listens.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Usage(text) | Self::Local(text) => Some(text.clone()),
            Self::Op(error) => Some(format!("{error}{}", hint(error))),
            Self::Backup(error) => Some(format!("{error}{}", backup_hint(error))),
            Self::Closed => None,
        }
    }

    /// The same as a line of JSON.
    pub(crate) fn json(&self) -> Option<Vec<u8>> {
        let text = self.text()?;
        let mut out = Vec::new();
        let line = Line::begin(&mut out)
            .field("error", self.name())
            .field("message", text)
            .field("exit_code", self.exit().code());
        match self {
            Self::Op(error) => op_fields(line, error).end(),
            Self::Usage(_) | Self::Backup(_) | Self::Local(_) | Self::Closed => line.end(),
        }
        Some(out)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Backup(_) => "backup",
            Self::Local(_) | Self::Closed => "local",
            Self::Op(error) => kind_name(error.kind()),
        }
    }
}

/// The word for a kind of error, as in JSON.
pub(crate) fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "invalid",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Denied => "denied",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Full => "full",
        ErrorKind::Misrouted => "misrouted",
        ErrorKind::Corrupt => "corrupt",
        _ => "other",
    }
}

impl From<kvclient::Error> for Failure {
    fn from(error: kvclient::Error) -> Self {
        Self::Op(Box::new(error))
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::Backup(Box::new(error))
    }
}

/// The flag that allows it.
fn backup_hint(error: &BackupError) -> &'static str {
    match error {
        BackupError::NotEmpty => " (--into-non-empty)",
        _ => "",
    }
}

fn backup_exit(error: &BackupError) -> Exit {
    match error {
        BackupError::Missing(_)
        | BackupError::Half { .. }
        | BackupError::Foreign { .. }
        | BackupError::OutOfRange(_)
        | BackupError::OtherRestore { .. } => Exit::Wrong,
        BackupError::Ahead { .. } | BackupError::NotEmpty => Exit::Conflict,
        BackupError::Busy(_) | BackupError::Unreachable { .. } => Exit::Unavailable,
        BackupError::Target(error) => Exit::of(error.kind(), error.outcome()),
        // A file that cannot be used or is damaged, and what a later version adds.
        _ => Exit::Failed,
    }
}

fn op_fields<'a>(line: Line<'a>, error: &kvclient::Error) -> Line<'a> {
    let outcome = match error.outcome() {
        Outcome::NotApplied => "not_applied",
        Outcome::Unknown => "unknown",
    };
    let line = line.field("op", error.op()).field("outcome", outcome);
    let line = match error.key() {
        Some(key) => line.bytes("key", key.as_bytes()),
        None => line,
    };
    line.optional("shard", error.shard())
        .optional("node", error.node().map(ToString::to_string))
        .field("attempts", error.attempts())
        .optional("position", error.position().map(|at| at.to_string()))
        .optional(
            "lost_position",
            error.lost_position().map(|at| at.to_string()),
        )
}

/// What a person may want to look at.
fn hint(error: &kvclient::Error) -> &'static str {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(AttemptError::NotConnected(_)) => {
            " (is the cluster running? ./launch.sh starts one; --map and --node say which one to ask)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((gone.exit(), gone.text()), (Exit::Done, None));
        let full = Failure::output(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.exit(), Exit::Failed);
    }

    #[tokio::test]
    async fn as_json() {
        let kv = kvclient::Client::connect(Vec::<String>::new()).await;
        let failure = Failure::from(kv.expect_err("no node is named"));
        let line = failure.json().expect("something to say");
        let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(line["error"], "invalid");
        assert_eq!(line["exit_code"], 2);
        assert_eq!(line["op"], "connect");
        assert_eq!(line["outcome"], "not_applied");
        assert!(line.get("key").is_none());
    }
}
