//! A door for the benchmarks in `benches/` to what is private. Not part of the API: it is there only with the feature
//! `bench`, and may change at any time.

use std::time::Duration;

use criterion::Criterion;

use crate::{
    key::Key,
    plan::{Plan, Standing, View},
    policy::{Candidate, Consistency, LeastBusy, OpKind, ReadRequest},
    shard_map::{Role, Shard},
};

const SOUND: Standing = Standing {
    is_ejected: false,
    is_behind: false,
    is_near: true,
};

/// A second of each is enough to see a tenth; `--measurement-time` asks for more.
pub fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

/// Plans a read that any node may answer and hands out so many of its targets, all nodes being sound; the sum of their
/// places.
pub fn plan_read(shard: &Shard, read: ReadRequest<'_>, targets: usize) -> usize {
    let node = |place: usize| Candidate {
        address: &shard.nodes().nth(place).expect("it is asked for").address,
        role: match place {
            0 => Role::Primary,
            _ => Role::Replica,
        },
        zone: None,
        in_flight: place,
        latency: None,
    };
    let view = View {
        standing: &|_| SOUND,
        node: &node,
        policy: &LeastBusy,
        read,
    };
    let mut plan = Plan::new(OpKind::Read, Consistency::Eventual, shard);
    let places = (0..targets).map_while(|_| plan.next(&view));
    places.sum()
}

/// A read of a key, nobody having been asked for it yet.
pub fn first_read(key: &Key) -> ReadRequest<'_> {
    ReadRequest {
        key: Some(key),
        asked: 0,
    }
}
