//! Replica side of replication: pull, check, append, advance.
//!
//! One task per replica. It asks the primary for frames after its own durable end, checks and appends them as they
//! are, syncs, applies, and only then asks again: the next request is the acknowledgement.
//!
//! Invariant: this log is, byte for byte, a prefix of the primary's. Where it is not, nothing is truncated: the
//! tail is saved, reads are refused, and a person decides.
//! Cancel safety: may be dropped at any `.await`; frames are stored whole or not at all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvclient::{
    attempt::AttemptError,
    faults::{self, Guarantee},
    node_client::{NodeClient, SnapshotRequest},
    position::{Lineage, Position, Seq},
    shard_map::Address,
    wire::{
        error::ErrorCode,
        log::Frame,
        pull::{PullAnswer, PullRequest},
    },
};

use super::{diverged, snapshot_sink::Sink};
use crate::{
    commit::AppendError,
    home::{Home, HomeError, OldGeneration},
    marker::State,
    ownership::own_shard,
    readiness::Readiness,
    service::Service,
    storage::{Storage, StorageError},
};

/// How long the primary may hold a pull while it has nothing: bounds how old a replica's notion of its lag is.
const WAIT: Duration = Duration::from_millis(250);

/// Time beyond the wait in which an answer has to come.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of frames taken at once: appended with one sync, visible within milliseconds.
const MAX_BYTES: u32 = 1 << 20;

/// First and longest pause after a failure; each failure doubles it, and half of it is random.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often a primary that cannot be reached is worth a line in the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Pause while a person has to decide.
const PARTED_PAUSE: Duration = Duration::from_secs(5);

/// Longest silence within a snapshot.
const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);

/// Copies the primary's log for as long as the node runs.
#[derive(Debug)]
pub struct Puller {
    /// What it keeps up to date.
    pub service: Arc<Service>,
    /// Where generations begin and change.
    pub home: Arc<Home>,
}

/// Why a step did not advance.
#[derive(Debug)]
enum Trouble {
    /// The primary did not answer, or not now.
    Unreachable(String),
    /// Logs have parted: a person decides, or the primary that this replica fits comes back.
    Parted(String),
    /// The same positions hold different things: that does not mend itself.
    Wrong(String),
    /// The node is ending.
    Ended,
}

impl Puller {
    /// Pulls until the node stops.
    pub async fn run(self) {
        let mut pause = PAUSES.0;
        let mut told: Option<Instant> = None;
        loop {
            let trouble = match self.step().await {
                Ok(()) => {
                    (pause, told) = (PAUSES.0, None);
                    self.service.progress.set_trouble(None);
                    continue;
                }
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Unreachable(why) => {
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        tracing::warn!(%why, "cannot pull from the primary");
                        told = Some(Instant::now());
                    }
                    self.service.progress.set_trouble(Some(why));
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                Trouble::Parted(why) => {
                    self.diverged(why);
                    tokio::time::sleep(PARTED_PAUSE).await;
                }
                Trouble::Wrong(why) => return self.stay_diverged(why).await,
                Trouble::Ended => return,
            }
        }
    }

    /// Serves no reads any more, until `--rejoin`.
    async fn stay_diverged(&self, why: String) {
        let (home, reason) = (Arc::clone(&self.home), why.clone());
        let remembered = tokio::task::spawn_blocking(move || home.distrust(&reason)).await;
        if let Ok(Err(error)) = remembered {
            tracing::error!(%error, "that the data is wrong cannot be remembered");
        }
        self.diverged(why);
    }

    fn diverged(&self, why: String) {
        self.service.progress.set_trouble(Some(why.clone()));
        if self.service.set_readiness(Readiness::Diverged(why.clone())) {
            tracing::error!(%why, "diverged: serves no reads");
        }
    }

    /// How it asks now.
    fn client(&self) -> NodeClient {
        self.service.asker.client()
    }

    /// One pull and what follows from it.
    async fn step(&self) -> Result<(), Trouble> {
        let primary = own_shard(&self.service.map.load(), self.service.place())
            .primary
            .address
            .clone();
        let marker = self.home.marker();
        if marker.state == State::Rejoining {
            self.keep_tail(&primary).await?;
            return self.take_snapshot(&primary, OldGeneration::Keep).await;
        }
        if !marker.distrust.is_empty() {
            return Err(Trouble::Wrong(marker.distrust));
        }
        let mut storage = self.service.storage.load_full();
        if storage.is_none() && marker.state != State::Creating {
            self.blocking(|home, service| home.open(service)).await?;
            storage = self.service.storage.load_full();
        }
        let request = self.request(storage.as_deref())?;
        let sent = Instant::now();
        let answer = self
            .client()
            .pull(&primary, &request, WAIT + ANSWER_WITHIN)
            .await
            .map_err(unreachable)?;
        if let Some(identity) = &answer.map_version {
            self.service.saw_map(&primary, identity);
        }
        match answer.error_code() {
            None => {}
            Some(ErrorCode::SnapshotRequired) => {
                // The old generation closes only once nobody holds it.
                drop(storage);
                return self.take_snapshot(&primary, OldGeneration::Remove).await;
            }
            Some(_) if faults::is_off(Guarantee::Handshake) => {
                drop(storage);
                return self.take_snapshot(&primary, OldGeneration::Remove).await;
            }
            Some(code) => {
                return Err(self
                    .refused(code, &answer, storage.as_deref(), &primary)
                    .await);
            }
        }
        let storage = match storage {
            Some(storage) => storage,
            None => self.begin(&answer).await?,
        };
        self.advance(&storage, &answer, sent, marker.state).await
    }

    fn request(&self, storage: Option<&Storage>) -> Result<PullRequest, Trouble> {
        let end = storage.map(|storage| storage.log.end()).unwrap_or_default();
        Ok(PullRequest {
            after: end.position.seq,
            max_bytes: MAX_BYTES,
            wait_ms: u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX),
            node_id: self.service.node_id,
            node_address: self.service.config.address.clone(),
            history: storage.map(|storage| storage.history),
            lineage: storage
                .map(|storage| durable_lineage(storage, end.position.seq))
                .unwrap_or_default(),
            last_crc: end.crc,
            map_version: Some(self.service.map.load().identity().to_owned()),
        })
    }

    /// The first answer of all: its history becomes this replica's.
    async fn begin(&self, answer: &PullAnswer) -> Result<Arc<Storage>, Trouble> {
        let history = answer
            .history
            .ok_or_else(|| Trouble::Unreachable("the primary did not name its history".into()))?;
        self.service.set_readiness(Readiness::Copying);
        self.blocking(move |home, service| home.begin(service, history, State::Copying))
            .await?;
        self.service.storage.load_full().ok_or(Trouble::Ended)
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&Home, &Arc<Service>) -> Result<(), HomeError> + Send + 'static,
    ) -> Result<(), Trouble> {
        let (home, service) = (Arc::clone(&self.home), Arc::clone(&self.service));
        match tokio::task::spawn_blocking(move || work(&home, &service)).await {
            Ok(done) => done.map_err(|error| Trouble::Unreachable(error.to_string())),
            Err(_) => Err(Trouble::Ended),
        }
    }

    async fn advance(
        &self,
        storage: &Storage,
        answer: &PullAnswer,
        sent: Instant,
        state: State,
    ) -> Result<(), Trouble> {
        if let Some(clock_ms) = answer.clock_ms {
            self.service.clock.follow(clock_ms);
        }
        let mut bytes = answer.frames.clone();
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let frame = Frame::split_from(&mut bytes);
            frames.push(frame.map_err(|error| Trouble::Unreachable(error.to_string()))?);
        }
        if !frames.is_empty() {
            storage
                .commit
                .append(frames)
                .await
                .map_err(|error| match error {
                    AppendError::Ended => Trouble::Ended,
                    other => Trouble::Unreachable(other.to_string()),
                })?;
            faults::point("puller.appended");
        }
        compare(storage, &answer.checkpoints)?;
        let Some(durable) = answer.durable else {
            return Ok(());
        };
        self.service.progress.saw_primary(durable);
        if storage.store.visible().seq >= durable.seq {
            let waited = Duration::from_millis(answer.waited_ms.unwrap_or(0));
            self.service.progress.caught_up(sent + waited);
            if state != State::Ready {
                self.blocking(|home, _| Ok(home.copied()?)).await?;
            }
        } else if state != State::Ready {
            return Ok(());
        }
        if self.service.set_readiness(Readiness::Ready) {
            tracing::info!("ready");
        }
        Ok(())
    }

    async fn refused(
        &self,
        code: ErrorCode,
        answer: &PullAnswer,
        storage: Option<&Storage>,
        primary: &Address,
    ) -> Trouble {
        let message = answer
            .error
            .as_ref()
            .map(|error| error.message.clone())
            .unwrap_or_default();
        let Some(storage) = storage else {
            return Trouble::Unreachable(message);
        };
        let common = match code {
            ErrorCode::Diverged => answer.common.unwrap_or(Position::ZERO).seq,
            ErrorCode::ForeignHistory => 0,
            _ => return Trouble::Unreachable(message),
        };
        let saved = self.save_tail(storage, common).await;
        Trouble::Parted(format!(
            "this replica's log is not a prefix of the primary's at {primary}: {message}. {saved}. If the primary is \
             right, start this node once with --rejoin; if this node is right, make it the primary"
        ))
    }

    /// Before data that a person gave up is set aside: what only it holds is written where people look for it. The
    /// primary is asked how far both are the same without a word of this node's own reigns, which may be newer: whoever
    /// is told to rejoin ends nobody's reign.
    async fn keep_tail(&self, primary: &Address) -> Result<(), Trouble> {
        if faults::is_off(Guarantee::Handshake) {
            return Ok(());
        }
        let question = PullRequest {
            max_bytes: 1,
            wait_ms: 0,
            ..self.request(None)?
        };
        let client = self.client();
        let answer = client.pull(primary, &question, ANSWER_WITHIN);
        let answer = answer.await.map_err(unreachable)?;
        let (Some(history), Some(lineage), Some(durable)) =
            (answer.history, answer.lineage, answer.durable)
        else {
            let why = answer.error.map(|error| error.message);
            return Err(Trouble::Unreachable(why.unwrap_or_default()));
        };
        let dir = self.home.diverged_dir();
        let saved = self.look(move |storage| {
            let (own, end) = (storage.store.lineage(), storage.log.durable().seq);
            let common = match history == storage.history {
                true => lineage.common_seq(durable.seq, &own, end),
                false => 0,
            };
            (common < end).then(|| diverged::save_tail(&dir, storage, common))
        });
        match saved.await?.flatten() {
            None => {}
            Some(Ok(path)) => {
                tracing::warn!(path = %path.display(), "what only this node had is kept");
            }
            Some(Err(error)) => {
                let why = format!("what only this node has cannot be copied aside: {error}");
                return Err(Trouble::Unreachable(why));
            }
        }
        Ok(())
    }

    /// Looks at the generation that was given up. `None` if it cannot be opened, which may be why it was; then it is
    /// kept as it is.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Storage) -> T + Send + 'static,
    ) -> Result<Option<T>, Trouble> {
        let (home, service) = (Arc::clone(&self.home), Arc::clone(&self.service));
        match tokio::task::spawn_blocking(move || home.look(&service, look)).await {
            Ok(Ok(seen)) => Ok(Some(seen)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the data that was given up cannot be opened; it is kept as it is");
                Ok(None)
            }
            Err(_) => Err(Trouble::Ended),
        }
    }

    async fn save_tail(&self, storage: &Storage, common: Seq) -> String {
        let (dir, storage) = (self.home.diverged_dir(), storage.clone());
        match tokio::task::spawn_blocking(move || diverged::save_tail(&dir, &storage, common)).await
        {
            Ok(Ok(path)) => format!("What only this node has is kept in {}", path.display()),
            Ok(Err(error)) => {
                format!("What only this node has could not be copied aside ({error})")
            }
            Err(_) => "The node is ending".into(),
        }
    }

    /// Builds a new generation from a snapshot and changes over to it.
    async fn take_snapshot(&self, primary: &Address, old: OldGeneration) -> Result<(), Trouble> {
        tracing::info!(%primary, "takes a snapshot");
        let home = Arc::clone(&self.home);
        let path = tokio::task::spawn_blocking(move || home.new_generation()).await;
        let path = path
            .map_err(|_| Trouble::Ended)?
            .map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let request = SnapshotRequest {
            node_id: self.service.node_id,
            node_address: self.service.config.address.clone(),
            idle_timeout: SNAPSHOT_SILENCE,
        };
        let mut body = self
            .client()
            .snapshot(primary, &request)
            .await
            .map_err(unreachable)?;
        let (pieces, queue) = tokio::sync::mpsc::channel::<Bytes>(4);
        let (service, home) = (Arc::clone(&self.service), Arc::clone(&self.home));
        let sink = tokio::task::spawn_blocking(move || build(&service, &home, &path, queue, old));
        let streamed = loop {
            let piece = match body.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(unreachable(error)),
            };
            if pieces.send(piece).await.is_err() {
                break Ok(());
            }
        };
        drop(pieces);
        // Waited for also when the stream broke: the next try must not remove what this one is still writing, or,
        // if the end had come already, is just putting in force.
        match (sink.await, streamed) {
            (Ok(Ok(())), _) => Ok(()),
            (Ok(Err(Trouble::Unreachable(_))), Err(broken)) => Err(broken),
            (Ok(Err(trouble)), _) => Err(trouble),
            (Err(_), _) => Err(Trouble::Ended),
        }
    }
}

fn build(
    service: &Arc<Service>,
    home: &Home,
    path: &std::path::Path,
    mut queue: tokio::sync::mpsc::Receiver<Bytes>,
    old: OldGeneration,
) -> Result<(), Trouble> {
    let map = service.map.load();
    let shard = own_shard(&map, service.place());
    let slots = shard.slots_text();
    let mut sink = Sink::new(path, &service.config.sizes, &shard.name, &slots);
    loop {
        let built = match queue.blocking_recv() {
            Some(piece) => sink.push(&piece),
            None if faults::is_off(Guarantee::WholeCopy) => sink.finish_early().map(Some),
            None => break,
        };
        let built = built.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        faults::point("snapshot.piece_stored");
        if let Some(built) = built {
            faults::point("snapshot.before_force");
            home.change_to(service, path, built.history, old)
                .map_err(|error| match error {
                    HomeError::Storage(StorageError::Refused(why)) => Trouble::Parted(why),
                    other => Trouble::Unreachable(other.to_string()),
                })?;
            faults::point("snapshot.in_force");
            tracing::info!(end = %built.end.position, entries = built.entries, "snapshot is in force");
            return Ok(());
        }
    }
    Err(Trouble::Unreachable(
        "the snapshot ended before its end".into(),
    ))
}

/// The reigns up to a durable seq: what is not visible yet is read from the store a moment later.
fn durable_lineage(storage: &Storage, durable: Seq) -> Lineage {
    let mut lineage = storage.store.lineage().as_ref().clone();
    lineage.truncate_after(durable);
    lineage
}

/// Counts and sums at equal positions must be equal.
fn compare(storage: &Storage, theirs: &[(Position, u64)]) -> Result<(), Trouble> {
    for own in storage.store.checkpoints() {
        let other = theirs
            .iter()
            .find(|(position, _)| *position == own.position);
        if let Some((position, digest)) = other
            && *digest != own.digest
        {
            return Err(Trouble::Wrong(format!(
                "at {position} the counts and sums of this replica differ from the primary's: one of them holds \
                 wrong data. Run kvnode check on both; start the wrong replica once with --rejoin"
            )));
        }
    }
    Ok(())
}

fn unreachable(error: AttemptError) -> Trouble {
    Trouble::Unreachable(error.to_string())
}
