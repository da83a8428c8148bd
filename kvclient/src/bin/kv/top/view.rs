//! What is known of each node: its state by its own word, and its last minute, second by second.
//!
//! Each node is asked by a loop of its own, so that one that hangs holds up nobody. They share a list, a place each.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use futures_util::future::join_all;
use kvclient::{ShardMap, shard_map::Address, wire::route};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::sleep;

use crate::nodes_say::Asker;

/// Samples that are shown: a minute.
pub(crate) const SHOWN: usize = 60;

/// Pause between two questions to a node. It takes a sample a second; more often shows nothing more.
const EVERY: Duration = Duration::from_secs(1);

/// One second of a node, as `/status/history` has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sample {
    pub(crate) at_ms: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) failed: u64,
    pub(crate) read_p50_us: Option<f64>,
    pub(crate) read_p99_us: Option<f64>,
    pub(crate) write_p50_us: Option<f64>,
    pub(crate) write_p99_us: Option<f64>,
    pub(crate) lag_ms: Option<u64>,
    pub(crate) log_bytes: u64,
    pub(crate) lmdb_bytes: u64,
    pub(crate) memory_bytes: Option<u64>,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It was not heard of yet.
    Asked,
    Ready,
    /// Says why.
    NotReady(String),
    /// Does not answer; says why.
    Down(String),
}

impl State {
    /// One word or two.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Ready => "ready",
            Self::NotReady(_) => "not ready",
            Self::Down(_) => "down",
        }
    }

    /// Why it is not well, if it is not.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Asked | Self::Ready => None,
            Self::NotReady(why) | Self::Down(why) => Some(why),
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) shard: String,
    pub(crate) address: Address,
    pub(crate) role: &'static str,
    pub(crate) state: State,
    /// The newest last.
    pub(crate) samples: VecDeque<Sample>,
}

impl View {
    /// Its last second, if it answers.
    pub(crate) fn last(&self) -> Option<&Sample> {
        match self.state {
            State::Asked | State::Down(_) => None,
            State::Ready | State::NotReady(_) => self.samples.back(),
        }
    }

    fn take(&mut self, state: State, samples: Vec<Sample>) {
        self.state = state;
        // A node that was started anew with another clock begins anew.
        let newest = self.samples.back().map_or(0, |sample| sample.at_ms);
        if samples.iter().any(|sample| sample.at_ms < newest) {
            self.samples.clear();
        }
        self.samples.extend(samples);
        let too_many = self.samples.len().saturating_sub(SHOWN);
        self.samples.drain(..too_many);
    }
}

/// All nodes of a map, none asked yet.
pub(crate) fn views(map: &ShardMap) -> RefCell<Vec<View>> {
    let shards = map.shards().iter();
    let views = shards.flat_map(|shard| {
        shard.nodes().map(|node| View {
            shard: shard.name.clone(),
            address: node.address.clone(),
            role: shard
                .role_of(&node.address)
                .map_or("", |role| role.as_str()),
            state: State::Asked,
            samples: VecDeque::new(),
        })
    });
    RefCell::new(views.collect())
}

/// Asks every node once.
pub(crate) async fn ask_all(asker: &Asker, views: &RefCell<Vec<View>>) {
    let count = views.borrow().len();
    join_all((0..count).map(|at| ask(asker, views, at))).await;
}

/// Asks every node again and again; never ends.
pub(crate) async fn follow(asker: &Asker, views: &RefCell<Vec<View>>) {
    let count = views.borrow().len();
    join_all((0..count).map(|at| follow_one(asker, views, at))).await;
}

async fn follow_one(asker: &Asker, views: &RefCell<Vec<View>>, at: usize) {
    loop {
        ask(asker, views, at).await;
        sleep(EVERY).await;
    }
}

async fn ask(asker: &Asker, views: &RefCell<Vec<View>>, at: usize) {
    let (address, after) = {
        let views = views.borrow();
        let newest = views[at].samples.back();
        (
            views[at].address.clone(),
            newest.map_or(0, |sample| sample.at_ms),
        )
    };
    let path = format!("{}?after={after}", route::STATUS_HISTORY);
    let status = asker.document(&address, route::STATUS).await;
    let heard = match status {
        Ok(status) => asker
            .document(&address, &path)
            .await
            .map(|history| (status, history)),
        Err(error) => Err(error),
    };
    let mut views = views.borrow_mut();
    match heard {
        Ok((status, history)) => views[at].take(state_of(&status), samples_of(&history)),
        Err(error) => views[at].take(State::Down(error.to_string()), Vec::new()),
    }
}

fn state_of(status: &Value) -> State {
    match status.get("state").and_then(Value::as_str) {
        Some("ready") => State::Ready,
        Some(why) => State::NotReady(why.to_owned()),
        None => State::NotReady("it does not say why".to_owned()),
    }
}

fn samples_of(history: &Value) -> Vec<Sample> {
    let samples = history.get("samples").cloned().unwrap_or_default();
    serde_json::from_value(samples).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node with some seconds behind it.
    pub(crate) fn view(port: u16, role: &'static str, state: State, samples: &[Sample]) -> View {
        View {
            shard: "s".into(),
            address: format!("h:{port}").parse().expect("an address"),
            role,
            state,
            samples: samples.iter().cloned().collect(),
        }
    }

    #[test]
    fn a_minute_is_kept_and_a_clock_set_back_begins_anew() {
        let at = |at_ms| Sample {
            at_ms,
            ..Sample::default()
        };
        let mut node = view(1, "primary", State::Asked, &[]);
        node.take(State::Ready, (1..=100).map(at).collect());
        assert_eq!((node.samples.len(), node.samples[0].at_ms), (SHOWN, 41));
        node.take(State::Down("gone".into()), Vec::new());
        assert_eq!((node.samples.len(), node.last()), (SHOWN, None));
        node.take(State::Ready, vec![at(7)]);
        assert_eq!(node.samples, [at(7)]);
    }

    #[test]
    fn what_is_no_history_is_none() {
        for history in [
            serde_json::json!(null),
            serde_json::json!({ "samples": [{ "reads": "many" }] }),
        ] {
            assert!(samples_of(&history).is_empty());
        }
        let history = serde_json::json!({ "samples": [{ "at_ms": 5, "reads": 2, "later": true }] });
        assert_eq!(samples_of(&history)[0].reads, 2);
    }
}
