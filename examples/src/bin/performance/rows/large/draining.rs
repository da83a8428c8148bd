//! Watchers that cost next to nothing: streams of each node that are read and counted, and not decoded.
//!
//! For what nodes can do at most. kvclient's watchers make a value of each event, two million a second there, and would
//! take the processors from the nodes, which then have less to tell.
//!
//! **How events are counted.** By the letter `k`, which each of them has once, in `"key"`: neither the keys and values
//! that are written here nor position events nor the lengths of chunks have it. A piece may end anywhere.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::ensure;
use kvclient::shard_map::Address;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::watching::{Tally, wanted};
use crate::cluster::Cluster;

const PIECE_BYTES: usize = 64 << 10;

/// Streams that are read until this is dropped.
pub(super) struct Drains {
    /// Events of each watcher, from all nodes.
    counts: Vec<Arc<AtomicUsize>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Drains {
    /// Starts all watchers and waits until nodes tell them what is written from then on.
    pub(super) async fn start(cluster: &Cluster, prefixes: usize) -> anyhow::Result<Self> {
        let (mut counts, mut tasks) = (Vec::new(), JoinSet::new());
        for prefix in wanted(prefixes) {
            let count = Arc::new(AtomicUsize::new(0));
            for node in cluster.nodes() {
                let stream = open(node.address(), &prefix).await?;
                tasks.spawn(drain(stream, count.clone()));
            }
            counts.push(count);
        }
        Ok(Self { counts, tasks })
    }
}

impl Tally for Drains {
    fn counts(&self) -> Vec<usize> {
        self.counts
            .iter()
            .map(|count| count.load(Relaxed))
            .collect()
    }

    fn tasks(&mut self) -> &mut JoinSet<anyhow::Result<()>> {
        &mut self.tasks
    }
}

/// Asks for a watch and reads the head of its answer: what is written from then on is told.
async fn open(node: &Address, prefix: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(node.to_string()).await?;
    let request = format!("GET /watch?prefix={prefix} HTTP/1.1\r\nhost: {node}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "{node} refuses a watch");
    Ok(stream)
}

async fn drain(mut stream: TcpStream, count: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = stream.read(&mut piece).await?;
        ensure!(bytes > 0, "a watch has ended");
        count.fetch_add(events(&piece[..bytes]), Relaxed);
    }
}

/// How many events have their letter in a piece. Counted in bytes, many at a time: a sum of 128 ones fits.
fn events(piece: &[u8]) -> usize {
    let ones = |part: &[u8]| part.iter().map(|byte| u8::from(*byte == b'k')).sum::<u8>();
    let parts = piece.chunks(128).map(|part| usize::from(ones(part)));
    parts.sum()
}
