//! Watches of scripted nodes: one log of a shard, told by any of its nodes as a node would.

use kvclient::{Position, wire::header};
use tokio::sync::watch;

use super::{
    FakeNode,
    fake_node::{Part, Request, StreamReply},
};

/// A shard's log: grows while nodes tell it. Clones are the same log.
#[derive(Debug, Clone)]
pub(crate) struct FakeLog {
    shard: String,
    /// Every record as an event, the first at position 1.1.
    events: watch::Sender<Vec<Vec<u8>>>,
}

impl FakeLog {
    /// An empty log of a shard.
    pub(crate) fn new(shard: &str) -> Self {
        Self {
            shard: shard.to_owned(),
            events: watch::Sender::new(Vec::new()),
        }
    }

    /// Adds a put; its seq.
    pub(crate) fn put(&self, key: &str, value: &str) -> u64 {
        let data = format!("{{\"key\":\"{key}\",\"value\":\"{value}\",\"time_ms\":7}}");
        self.add("put", &data)
    }

    /// Adds a record; its seq.
    pub(crate) fn add(&self, name: &str, data: &str) -> u64 {
        let mut seq = 0;
        self.events.send_modify(|events| {
            seq = events.len() as u64 + 1;
            events.push(event(name, seq, data));
        });
        seq
    }

    /// Where the log ends.
    pub(crate) fn end(&self) -> u64 {
        self.events.borrow().len() as u64
    }

    /// Where a request wants to begin.
    pub(crate) fn after(&self, request: &Request) -> u64 {
        let query = request.query();
        let after = query.bytes("after").map(|text| match text {
            b"earliest" => 0,
            text => {
                let text = std::str::from_utf8(text).unwrap();
                text.parse::<Position>().unwrap().seq
            }
        });
        after.unwrap_or_else(|| self.end())
    }

    /// Answers with these parts.
    pub(crate) fn reply(&self, parts: Vec<Part>) -> StreamReply {
        StreamReply::Stream(vec![(header::SHARD, self.shard.clone())], parts)
    }

    /// Answers as a node would: where it begins, then all there is, then all that comes.
    pub(crate) fn answer(&self, request: &Request) -> StreamReply {
        let after = self.after(request);
        let live = Part::Live(self.events.subscribe(), usize::try_from(after).unwrap());
        self.reply(vec![Part::Bytes(position_event(after)), live])
    }

    /// All bytes of an answer, up to where the log ends now.
    pub(crate) fn bytes(&self, request: &Request) -> Vec<u8> {
        let after = self.after(request);
        let events = self.events.borrow();
        let rest = events[usize::try_from(after).unwrap()..].concat();
        [position_event(after), rest].concat()
    }

    /// Answers as a node would: where it begins, then all there is, then that there is no more.
    pub(crate) fn answer_level(&self, request: &Request) -> StreamReply {
        let all = [self.bytes(request), level_event(self.end())].concat();
        self.reply(vec![Part::Bytes(all), Part::Hang])
    }

    /// Answers as a node whose log has lost its first record.
    pub(crate) fn answer_cut(&self, request: &Request) -> StreamReply {
        let after = self.after(request).max(1);
        let events = self.events.borrow()[usize::try_from(after).unwrap()..].concat();
        let all = [position_event(after), events, level_event(self.end())].concat();
        self.reply(vec![Part::Bytes(all), Part::Hang])
    }

    /// Its first record as an event.
    pub(crate) fn first_bytes(&self) -> Vec<u8> {
        self.events.borrow()[0].clone()
    }

    /// Lets a node tell it.
    pub(crate) fn serve(&self, node: &FakeNode) {
        let log = self.clone();
        node.script_streams(move |request| log.answer(request));
    }
}

/// All up to a seq was looked at, and there is no more.
fn level_event(seq: u64) -> Vec<u8> {
    let data = format!("{{\"position\":\"1.{seq}\",\"visible\":\"1.{seq}\"}}");
    event("position", seq, &data)
}

/// All up to a seq was looked at.
pub(crate) fn position_event(seq: u64) -> Vec<u8> {
    let data = format!("{{\"position\":\"1.{seq}\",\"visible\":\"1.1000000\"}}");
    event("position", seq, &data)
}

/// The log does not go on behind a seq.
pub(crate) fn truncated_event(seq: u64) -> Vec<u8> {
    let data = format!("{{\"position\":\"1.{seq}\",\"truncated\":{}}}", seq + 1);
    format!("event: log_truncated\ndata: {data}\n\n").into_bytes()
}

fn event(name: &str, seq: u64, data: &str) -> Vec<u8> {
    format!("event: {name}\nid: 1.{seq}\ndata: {data}\n\n").into_bytes()
}
