//! Entries that expire: each is there until its time is over, and gone after it, whatever happens meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kvclient::{Client, Consistency, GetOptions, PutOptions};

use super::{arena::SHARDS, watch::Watch};
use crate::support::shard_of;

const DRAFTS: usize = 40;

/// How long a draft lives.
const LIFE: Duration = Duration::from_secs(3);

/// How much earlier it may be gone: nodes count in whole ms, begun ones too, and their clocks are corrected now and then.
const EARLIER: Duration = Duration::from_millis(10);

/// How much later than that it may still be seen.
const LATER: Duration = Duration::from_millis(100);

/// Between two ops of a task.
const PAUSE: Duration = Duration::from_millis(10);

/// One task.
pub(super) struct Drafts {
    client: Client,
    watch: Arc<Watch>,
    rng: fastrand::Rng,
    number: usize,
    drafts: Vec<Option<Draft>>,
    written: usize,
    /// Reads that were sure what they must find: an entry, and none.
    pub(super) sure: [usize; 2],
}

/// A draft that was acknowledged.
struct Draft {
    key: String,
    sent: Instant,
    acked: Instant,
}

impl Drafts {
    pub(super) fn new(
        number: usize,
        client: Client,
        watch: Arc<Watch>,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            client,
            watch,
            rng,
            number,
            drafts: (0..DRAFTS).map(|_| None).collect(),
            written: 0,
            sure: [0; 2],
        }
    }

    /// Works until told to stop.
    pub(super) async fn work(mut self) -> Self {
        while self.watch.goes_on() {
            let draft = self.rng.usize(..DRAFTS);
            let is_over = self.drafts[draft]
                .as_ref()
                .is_none_or(|draft| draft.acked.elapsed() > 2 * LIFE);
            match is_over {
                true => self.write(draft).await,
                false => self.read(draft).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    /// Writes a draft in place of an old one, under a new key: one of unknown outcome is nothing to judge.
    async fn write(&mut self, draft: usize) {
        self.written += 1;
        let key = format!("draft:{}:{}", self.number, self.written);
        let sent = Instant::now();
        let put = self
            .client
            .put_with(&key, key.clone(), PutOptions::new().ttl(LIFE));
        let shard = shard_of(key.as_bytes(), SHARDS);
        let is_written = self.watch.write(shard, put).await.is_ok();
        self.drafts[draft] = is_written.then(|| Draft {
            key,
            sent,
            acked: Instant::now(),
        });
    }

    async fn read(&mut self, draft: usize) {
        let Some(draft) = &self.drafts[draft] else {
            return;
        };
        let began = Instant::now();
        let options = GetOptions::new().consistency(Consistency::Primary);
        let read = self.client.get_with(&draft.key, options);
        let Ok(found) = self.watch.op(read).await else {
            return;
        };
        let must_be_there = draft.sent.elapsed() < LIFE - EARLIER;
        let must_be_gone = began > draft.acked + LIFE + LATER;
        let is_right = match found {
            Some(entry) => entry.value == draft.key.as_bytes() && !must_be_gone,
            None => !must_be_there,
        };
        self.sure[0] += usize::from(must_be_there);
        self.sure[1] += usize::from(must_be_gone);
        if !is_right {
            let age = draft.acked.elapsed();
            let what = format!(
                "{} wrongly there or gone {age:?} after it was written",
                draft.key
            );
            self.watch.violation(what);
        }
    }
}
