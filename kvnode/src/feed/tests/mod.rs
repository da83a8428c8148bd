//! The feed over a real log: nothing is missed, repeated or told out of order, whoever reads whatever way.

mod handover;
mod together;

use std::path::Path;

use bytes::Bytes;
use kvclient::{
    position::{Position, Seq},
    wire::log::{Effect, FrameBuilder, Link, Record},
};
use tokio::sync::watch;

use crate::{
    feed::Pieces,
    log::{Log, LogOptions, LogWriter},
};

/// A log that is written to, and who remembers what is in it.
struct Shard {
    log: Log,
    writer: LogWriter,
    visible: watch::Sender<Position>,
    /// Keys by seq, from seq 1 on.
    keys: Vec<Bytes>,
}

impl Shard {
    fn create(dir: &Path) -> Self {
        let options = LogOptions {
            segment_bytes: 1 << 20,
            max_frame_bytes: 64 << 10,
            ..LogOptions::default()
        };
        let (log, writer) = Log::create(dir, 7, Link::default(), options).unwrap();
        Self {
            log,
            writer,
            visible: watch::Sender::new(Position::ZERO),
            keys: Vec::new(),
        }
    }

    /// Appends a frame that puts these keys; readers do not see it yet.
    fn append(&mut self, keys: &[Bytes]) {
        let mut builder = FrameBuilder::new();
        for key in keys {
            let effect = Effect::Put {
                value: Bytes::from_static(b"value"),
                expires_at_ms: None,
            };
            builder.push(&Record::new(key.clone(), effect));
        }
        let frame = builder.finish(&self.log.end(), 1, 99);
        self.writer.append_synced(&[frame]).unwrap();
        self.keys.extend_from_slice(keys);
    }

    /// Lets readers see all that is there.
    fn publish(&self) {
        self.visible.send_replace(self.log.durable());
    }

    /// Seqs of the events of a prefix behind one position and up to another.
    fn wanted(&self, prefix: &[u8], after: Seq, until: Seq) -> Vec<Seq> {
        let seqs = (1..).zip(&self.keys);
        let wanted =
            seqs.filter(|(seq, key)| (after + 1..=until).contains(seq) && key.starts_with(prefix));
        wanted.map(|(seq, _)| seq).collect()
    }
}

/// Seqs of the events in a text.
fn seqs(mut events: Pieces) -> Vec<Seq> {
    let mut text = Vec::new();
    while let Some(piece) = events.pop() {
        text.extend_from_slice(&piece);
    }
    let text = std::str::from_utf8(&text).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: 1."));
    ids.map(|seq| seq.parse().unwrap()).collect()
}
