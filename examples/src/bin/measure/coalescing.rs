//! What it gives and costs that the client gathers concurrent ops to one node into one request.
//!
//! Many tasks: the ops that a request carried on average. One task: what an op takes, by turns through the client and
//! as a batch of one op sent straight to its node, which is all that is left of the client without routing, session
//! and gathering. Both ask primaries only, so that both ask the same nodes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use kvclient::{
    Consistency, GetOptions, Key, PutOptions, Stats,
    node_client::{NodeClient, NodeClientOptions},
    wire::batch::{Action, Op, RequestId},
};

use super::{Load, WORK, Work, key};

/// Ops of a turn: few, so that whatever else the machine does meets both sides.
const TURN: usize = 50;

/// Ops that only make the connections.
const WARM_UP: usize = 200;

/// Longest wait for one op, on both sides.
const LIMIT: Duration = Duration::from_secs(5);

const SLOWEST_NANOS: u64 = 60_000_000_000;

/// Prints both tables.
pub(super) async fn measure(load: &Load, tasks: &[usize], lasts: Duration) -> anyhow::Result<()> {
    println!("| Work | Tasks | Ops in a request |");
    println!("|---|---|---|");
    for (name, work) in WORK {
        for &tasks in tasks.iter().filter(|&&tasks| tasks > 1) {
            let before = sums(&load.kv.stats());
            load.run(work, tasks, Instant::now() + lasts).await?;
            let after = sums(&load.kv.stats());
            let ops_a_request = (after.0 - before.0) as f64 / (after.1 - before.1) as f64;
            println!("| {name} | {tasks} | {ops_a_request:.1} |");
        }
    }
    println!();
    println!("| Work of one task | p50 us | sent straight | times as long |");
    println!("|---|---|---|---|");
    for (name, work) in WORK {
        let mut turns = Turns::new(load, work)?;
        let (gathered, straight) = turns.run(lasts).await?;
        let ratio = gathered / straight;
        println!("| {name} | {gathered:.1} | {straight:.1} | {ratio:.3} |");
    }
    Ok(())
}

/// Ops and requests, over all nodes.
fn sums(stats: &Stats) -> (u64, u64) {
    let nodes = stats.nodes.iter();
    nodes.fold((0, 0), |(ops, requests), node| {
        (ops + node.ops, requests + node.requests)
    })
}

/// One task that goes two ways by turns.
struct Turns<'a> {
    load: &'a Load,
    work: Work,
    nodes: NodeClient,
    /// The next write's id: like the client's own, so that the node has the same to do.
    id: RequestId,
}

impl<'a> Turns<'a> {
    fn new(load: &'a Load, work: Work) -> anyhow::Result<Self> {
        Ok(Self {
            load,
            work,
            nodes: NodeClient::new(NodeClientOptions::default())?,
            id: RequestId {
                client: fastrand::u128(..),
                n: 1,
                floor: 1,
            },
        })
    }

    /// Medians in microseconds: through the client, and straight.
    async fn run(&mut self, lasts: Duration) -> anyhow::Result<(f64, f64)> {
        for _ in 0..WARM_UP {
            self.gathered().await?;
            self.straight().await?;
        }
        let histogram = || Histogram::<u64>::new_with_max(SLOWEST_NANOS, 3);
        let (mut gathered, mut straight) = (histogram()?, histogram()?);
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            for _ in 0..TURN {
                gathered.saturating_record(nanos(self.gathered().await?));
            }
            for _ in 0..TURN {
                straight.saturating_record(nanos(self.straight().await?));
            }
        }
        let median = |times: &Histogram<u64>| times.value_at_quantile(0.5) as f64 / 1_000.0;
        Ok((median(&gathered), median(&straight)))
    }

    /// What one op takes through the client.
    async fn gathered(&self) -> anyhow::Result<Duration> {
        let key = self.random_key();
        let kv = &self.load.kv;
        let began = Instant::now();
        match self.work {
            Work::Get => {
                let options = GetOptions::new().consistency(Consistency::Primary);
                let found = kv.get_with(key, options.timeout(LIMIT)).await?;
                ensure!(found.is_some(), "a key that was stored is missing");
            }
            Work::Set => {
                let value = self.load.value.clone();
                let options = PutOptions::new().timeout(LIMIT);
                kv.put_with(key, value, options).await?;
            }
        }
        Ok(began.elapsed())
    }

    /// What the same takes as a batch of one op. Which node has the key is looked up before.
    async fn straight(&mut self) -> anyhow::Result<Duration> {
        let key = self.random_key();
        let node = self.load.kv.route(&key)?.primary;
        let began = Instant::now();
        let action = match self.work {
            Work::Get => Action::Get,
            Work::Set => Action::Put {
                value: self.load.value.clone(),
                ttl_ms: None,
            },
        };
        let mut op = Op::new(Key::new(key)?, action);
        op.terms.time_left_ms = Some(u32::try_from(LIMIT.as_millis())?);
        if op.action.is_write() {
            op.terms.request_id = Some(self.next_id());
        }
        let answer = self.nodes.batch(&node, &[op], LIMIT).await?;
        let took = began.elapsed();
        let status = answer.results[0].status;
        ensure!(matches!(status, 200 | 204), "answered with {status}");
        Ok(took)
    }

    fn random_key(&self) -> String {
        key(fastrand::usize(..self.load.keys))
    }

    fn next_id(&mut self) -> RequestId {
        let id = self.id;
        self.id.n += 1;
        self.id.floor += 1;
        id
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
