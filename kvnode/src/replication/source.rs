//! Primary side of replication: durable frames after a position, or the reason why not.
//!
//! A pull that passes the handshake is also an acknowledgement: the replica has synced everything up to `after`.
//! Only durable frames leave. Anyone may read frames without a handshake (a person, a comparison of logs); that
//! acknowledges nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{
    faults::{self, Guarantee},
    position::Seq,
    shard_map::Role,
    wire::{
        error::ErrorCode,
        pull::{PullAnswer, PullRequest},
    },
};

use super::handshake::{self, Own, Verdict};
use crate::{
    log::{LogError, ReadFrames},
    ownership::own_shard,
    service::Service,
    storage::Storage,
};

/// Longest wait of a pull.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Most bytes of frames in one answer: what a replica can check, append and sync in a few milliseconds.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Checkpoints named in an answer: enough for a replica that is a few flushes behind.
const CHECKPOINTS: usize = 8;

/// Answers a replica's pull, waiting for frames if there are none.
///
/// # Cancel safety
/// May be dropped; what the pull acknowledged is counted.
pub async fn answer(service: &Service, storage: &Storage, pull: &PullRequest) -> PullAnswer {
    let arrived = Instant::now();
    reign_is_visible(storage, arrived + MAX_WAIT).await;
    let answer = match judge(service, storage, pull) {
        Err(error) => failed(&error),
        Ok(Verdict::Continue) => frames(storage, pull, arrived).await,
        Ok(verdict) => refuse(service, storage, verdict),
    };
    let newest = storage.store.newest_checkpoints(CHECKPOINTS);
    PullAnswer {
        durable: Some(storage.log.durable()),
        history: Some(storage.history),
        lineage: Some(storage.store.lineage().as_ref().clone()),
        clock_ms: Some(service.clock.now_ms()),
        waited_ms: u64::try_from(arrived.elapsed().as_millis()).ok(),
        checkpoints: newest
            .into_iter()
            .map(|checkpoint| (checkpoint.position, checkpoint.digest))
            .collect(),
        ..answer
    }
}

/// Frames after a seq for whoever asks, without a handshake.
///
/// # Errors
/// The log's reason, in the form of a refusal.
pub fn read(storage: &Storage, after: Seq, max_bytes: usize) -> Result<Bytes, Box<PullAnswer>> {
    match storage
        .log
        .read_after(after, max_bytes.min(MAX_ANSWER_BYTES))
    {
        Ok(ReadFrames::Frames(frames)) => Ok(frames),
        Ok(ReadFrames::UpToDate) => Ok(Bytes::new()),
        Ok(ReadFrames::Truncated) => {
            let message = format!("the log begins after seq {}", storage.log.truncated());
            Err(Box::new(PullAnswer::refused(
                ErrorCode::LogTruncated,
                message,
            )))
        }
        Err(error) => Err(Box::new(failed(&error))),
    }
}

/// Waits until the newest durable reign is in the lineage. A replica may have been sent the record that begins it a
/// moment before; judged by the lineage without it, it would seem to know a reign newer than ours.
async fn reign_is_visible(storage: &Storage, until: Instant) {
    let durable = storage.log.durable();
    let mut visible = storage.store.subscribe();
    while storage.store.lineage().epoch() < durable.epoch {
        let changed = tokio::time::timeout_at(until.into(), visible.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return;
        }
    }
}

fn judge(service: &Service, storage: &Storage, pull: &PullRequest) -> Result<Verdict, LogError> {
    // The durable end is read first: a reign that begins between them only makes the lineage longer.
    let durable = storage.log.durable();
    let lineage = storage.store.lineage();
    let own = Own {
        history: storage.history,
        lineage: &lineage,
        durable,
        truncated: storage.log.truncated(),
    };
    let verdict = handshake::judge(&own, pull, |seq| storage.log.link_at(seq))?;
    let map = service.map.load();
    let is_ours =
        own_shard(&map, service.place()).role_of(&pull.node_address) == Some(Role::Replica);
    if (!is_ours || service.role() == Role::Replica) && !faults::is_off(Guarantee::AckCounting) {
        // Its word counts for nothing, whatever it says of itself.
        return Ok(if matches!(verdict, Verdict::StaleEpoch { .. }) {
            Verdict::ForeignHistory
        } else {
            verdict
        });
    }
    if let Some(identity) = &pull.map_version {
        service.saw_map(&pull.node_address, identity);
    }
    match verdict {
        Verdict::Continue if pull.after <= durable.seq && pull.history.is_some() => {
            let position = lineage.position_at(pull.after);
            service
                .progress
                .saw_replica(pull.node_id, pull.node_address.clone(), position);
            storage
                .kept_log
                .pulled(&pull.node_address, pull.after, durable.seq);
        }
        Verdict::StaleEpoch { newer } if !faults::is_off(Guarantee::Handshake) => {
            service.fence(newer)
        }
        _ => {}
    }
    Ok(verdict)
}

async fn frames(storage: &Storage, pull: &PullRequest, arrived: Instant) -> PullAnswer {
    let max_bytes = pull.max_bytes as usize;
    let until = arrived + Duration::from_millis(pull.wait_ms.into()).min(MAX_WAIT);
    let mut durable = storage.log.subscribe();
    loop {
        durable.borrow_and_update();
        match read(storage, pull.after, max_bytes) {
            Ok(frames) if !frames.is_empty() => {
                return PullAnswer {
                    status: 200,
                    frames,
                    ..PullAnswer::default()
                };
            }
            Ok(_) => {}
            Err(refusal) => return *refusal,
        }
        let changed = tokio::time::timeout_at(until.into(), durable.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return PullAnswer {
                status: 200,
                ..PullAnswer::default()
            };
        }
    }
}

fn refuse(service: &Service, storage: &Storage, verdict: Verdict) -> PullAnswer {
    let address = &service.config.address;
    match verdict {
        Verdict::Continue => PullAnswer {
            status: 200,
            ..PullAnswer::default()
        },
        Verdict::SnapshotRequired => {
            let message = format!(
                "the log of {address} begins after seq {}; take a snapshot",
                storage.log.truncated()
            );
            PullAnswer::refused(ErrorCode::SnapshotRequired, message)
        }
        Verdict::Diverged { common } => {
            let message = format!(
                "both logs are the same up to {common} only; {address} does not have what follows"
            );
            let refused = PullAnswer::refused(ErrorCode::Diverged, message);
            PullAnswer {
                common: Some(common),
                ..refused
            }
        }
        Verdict::ForeignHistory => {
            let message = format!("the log of {address} has history {:032x}", storage.history);
            PullAnswer::refused(ErrorCode::ForeignHistory, message)
        }
        Verdict::StaleEpoch { newer } => {
            let message =
                format!("epoch {newer} is newer than any of {address}, which takes no more writes");
            PullAnswer::refused(ErrorCode::StaleEpoch, message)
        }
    }
}

fn failed(error: &LogError) -> PullAnswer {
    tracing::error!(%error, "the log cannot be read for a replica");
    PullAnswer::refused(ErrorCode::StorageFailed, error.to_string())
}
