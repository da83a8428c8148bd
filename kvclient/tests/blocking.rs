//! The client that waits: the same results, from plain threads and from inside of runtimes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{collections::BTreeMap, thread};

use kvclient::{ErrorKind, GetOptions, PutOptions, blocking};
use support::{Cluster, FakeShard, StreamReply};
use tokio::runtime::Runtime;

/// Scripted nodes with a runtime of their own, so that they answer while a test waits.
struct Nodes {
    cluster: Cluster,
    /// Taken when it is dropped, which a runtime may not be everywhere.
    runtime: Option<Runtime>,
}

impl Nodes {
    fn start(shards: usize) -> Self {
        // From a thread of its own: a runtime cannot be waited for inside of another one.
        let started = thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            let cluster = runtime.block_on(Cluster::start(shards, 0));
            (cluster, Some(runtime))
        });
        let (cluster, runtime) = started.join().unwrap();
        Self { cluster, runtime }
    }

    fn client(&self) -> blocking::Client {
        blocking::Client::new(self.cluster.builder()).unwrap()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn every_call(nodes: &Nodes) {
    let kv = nodes.client();
    assert_eq!(kv.get("k").unwrap(), None);
    let written = kv.put("k", "1").unwrap();
    let entry = kv.get_with("k", GetOptions::new()).unwrap().unwrap();
    assert_eq!(
        (&entry.value[..], entry.position),
        (&b"1"[..], written.position)
    );
    assert!(kv.touch("k", std::time::Duration::from_secs(9)).unwrap());
    assert!(kv.persist("k").unwrap());
    assert_eq!(kv.incr("n", 5).unwrap(), 5);
    assert!(kv.delete("n").unwrap());
    let seen = kv.session();
    assert!(kv.session().position(0).is_some());
    assert_eq!(kv.with_session(seen.clone()).session(), seen);

    kv.put_many([("a", "1"), ("b", "2")]).unwrap();
    let values = kv.get_many(["a", "b", "c"]).unwrap();
    assert_eq!(values, [Some("1".into()), Some("2".into()), None]);
    assert_eq!(kv.delete_many(["a", "c"]).unwrap(), [true, false]);

    // Not Send, not 'static: it runs here.
    let mut calls = std::rc::Rc::new(0);
    let written = kv.update("b", |old| {
        *std::rc::Rc::get_mut(&mut calls).unwrap() += 1;
        Some([&old.unwrap().value[..], b"!"].concat())
    });
    assert!(written.unwrap().is_some());
    assert_eq!(*calls, 1);
    assert_eq!(kv.get("b").unwrap().as_deref(), Some(&b"2!"[..]));
    assert_eq!(
        kv.update_with("b", PutOptions::new(), |_| None::<&str>)
            .unwrap(),
        None
    );
    assert_eq!(kv.get("").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn from_a_plain_thread() {
    every_call(&Nodes::start(1));
}

#[tokio::test]
async fn inside_of_a_runtime_it_waits_and_does_not_panic() {
    every_call(&Nodes::start(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_of_a_runtime_of_many_threads() {
    every_call(&Nodes::start(1));
}

#[test]
fn many_threads_share_one_client() {
    let nodes = Nodes::start(2);
    let kv = nodes.client();
    thread::scope(|scope| {
        for thread in 0..8 {
            let kv = kv.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    let key = format!("{thread}:{n}");
                    kv.put(&key, key.clone()).unwrap();
                    assert_eq!(kv.get(&key).unwrap(), Some(key.into()));
                }
            });
        }
    });
}

#[test]
fn a_scan_is_an_iterator() {
    let nodes = Nodes::start(3);
    let entries: BTreeMap<Vec<u8>, Vec<u8>> = (0..5_000_u32)
        .map(|n| {
            (
                format!("k{n:05}").into_bytes(),
                vec![b'v'; n as usize % 1_000],
            )
        })
        .collect();
    let map = nodes.cluster.map(1);
    for shard in 0..3 {
        let node = nodes.cluster.primary(shard);
        let shard = FakeShard::of(&map, shard, &entries);
        node.script_streams(move |request| shard.answer(request));
    }
    let kv = nodes.client();
    let found: Vec<_> = kv.scan("k").map(|entry| entry.unwrap()).collect();
    let pairs = found.iter().map(|entry| {
        let value = entry.value.as_ref().unwrap();
        (entry.key.as_bytes().to_vec(), value.to_vec())
    });
    assert_eq!(pairs.collect::<BTreeMap<_, _>>(), entries);
    assert!(found.is_sorted_by_key(|entry| entry.key.clone()));
    let last: Vec<_> = kv.scan_with("k", |scan| scan.reverse().limit(3)).collect();
    assert_eq!(last.len(), 3);
    assert_eq!(last[0].as_ref().unwrap().key.as_bytes(), b"k04999");

    nodes
        .cluster
        .primary(1)
        .script_streams(|_| StreamReply::Break);
    let within = std::time::Duration::from_millis(50);
    let mut scan = kv.scan_with("k", |scan| scan.timeout(within));
    let failed = scan.find_map(Result::err).unwrap();
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    assert!(scan.next().is_none());
}

#[test]
fn a_cluster_can_be_asked_for_its_map() {
    let nodes = Nodes::start(1);
    let node = nodes.cluster.primary(0);
    node.set_map(&nodes.cluster.map(1));
    let kv = blocking::Client::connect([node.address.to_string()]).unwrap();
    kv.put("k", "v").unwrap();
    let nobody = blocking::Client::connect(["localhost:1"]).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Unavailable);
}
