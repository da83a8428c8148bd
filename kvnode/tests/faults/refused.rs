//! A10 and A11: a directory whose data is gone, and one that another process has. The node refuses, and what is there
//! stays as it is.

use std::{fs, path::Path, process::Command};

use super::ledger::{Ledger, ready_or_ended, restart};
use crate::support::{
    bar,
    cluster::{Cluster, Node, SMALL, Shape},
    eventually,
    ports::Port,
    report::{self, Row},
    writers::{Load, Writers},
};

const DATA_REFUSED: i32 = 3;
const IN_USE: i32 = 4;

fn load(run: usize) -> Load {
    Load {
        writers: 4,
        batch: 4,
        keys: 50,
        value_bytes: 300,
        run,
    }
}

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    let copied = command.arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success(), "{}", from.display());
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
    .expect("removed");
}

/// What is done to the data, by a name. It is given the data and a copy of it as it was some writes before.
type Loss = (&'static str, fn(&Path, &Path));

/// All ways to lose data that a node must notice.
const LOSSES: &[Loss] = &[
    ("data.mdb gone", |data, _| {
        remove(&data.join("gen-1/lmdb/data.mdb"))
    }),
    ("data.mdb emptied", |data, _| {
        fs::write(data.join("gen-1/lmdb/data.mdb"), "").expect("emptied");
    }),
    ("lmdb gone", |data, _| remove(&data.join("gen-1/lmdb"))),
    ("log gone", |data, _| remove(&data.join("gen-1/log"))),
    ("log emptied", |data, _| {
        remove(&data.join("gen-1/log"));
        fs::create_dir(data.join("gen-1/log")).expect("made");
    }),
    ("first segment emptied", |data, _| {
        fs::write(data.join("gen-1/log/0000000000000001.seg"), "").expect("emptied");
    }),
    ("generation gone", |data, _| remove(&data.join("gen-1"))),
    ("CURRENT gone", |data, _| remove(&data.join("CURRENT"))),
    ("CURRENT emptied", |data, _| {
        fs::write(data.join("CURRENT"), "").expect("emptied");
    }),
    ("all but the marker gone", |data, _| {
        remove(&data.join("gen-1"));
        remove(&data.join("CURRENT"));
    }),
    ("marker gone", |data, _| remove(&data.join("node.toml"))),
    ("marker emptied", |data, _| {
        fs::write(data.join("node.toml"), "").expect("emptied");
    }),
    ("an older log put back", |data, older| {
        remove(&data.join("gen-1/log"));
        copy(&older.join("gen-1/log"), &data.join("gen-1/log"));
    }),
];

/// A stopped node with data, its ledger, and an older copy of its directory.
async fn filled(cluster: &Cluster, older: &Path) -> Ledger {
    let node = cluster.primary(0);
    let mut ledger = Ledger::default();
    for run in 0..2 {
        let writers = Writers::start(cluster, load(run));
        writers.wait_acked(500).await;
        ledger.close(writers).await;
        node.stop().await;
        if run == 0 {
            copy(&node.data, older);
            node.start().await;
        }
    }
    ledger
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_node_whose_data_is_gone_refuses_to_start() {
    let mut row = Row::begin("A10");
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let (older, whole) = (cluster.dir().join("older"), cluster.dir().join("whole"));
    let mut ledger = filled(&cluster, &older).await;
    copy(&node.data, &whole);
    for _ in 0..if bar() { 10 } else { 1 } {
        for (what, lose) in LOSSES {
            lose(&node.data, &older);
            node.spawn(&[]);
            assert_eq!(
                ready_or_ended(node).await,
                Some(DATA_REFUSED),
                "{what}: {}",
                node.said()
            );
            assert!(node.said().contains("kvnode: "), "{what}: no line says why");
            row.rounds += 1;
            remove(&node.data);
            copy(&whole, &node.data);
        }
    }
    restart(node).await;
    ledger.judge(node).await;
    ledger.writes.assert_whole("after refusals");
    row.writes = ledger.writes;
    row.figures = format!(
        "{} ways to lose data beside its marker, {} of {} starts refused with exit code 3; put back, all is there",
        LOSSES.len(),
        row.rounds,
        row.rounds
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_control_a_node_that_does_not_mind_its_marker_starts_empty() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let mut ledger = filled(&cluster, &cluster.dir().join("older")).await;
    remove(&node.data.join("gen-1"));
    node.set_faults("off=marker");
    node.start().await;
    ledger.judge(node).await;
    assert!(ledger.writes.lost > 0, "{:?}", ledger.writes);
    let found = format!(
        "the node started without its data and served: all {} keys lost",
        ledger.writes.lost
    );
    report::save_control("A10", "a directory whose data is gone is refused", &found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_a_second_process_on_the_directory_is_refused() {
    let mut row = Row::begin("A11");
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let port = Port::take();
    let listen = format!("127.0.0.1:{}", port.number);
    let (map, data) = (text(&node.map), text(&node.data));
    let serve = [
        "--config",
        &map,
        "--address",
        &node.address,
        "--data",
        &data,
        "--listen",
        &listen,
    ];
    let check = ["check", "--data", &data];
    let mut ledger = Ledger::default();
    let writers = Writers::start(&cluster, load(0));
    writers.wait_acked(100).await;
    for _ in 0..if bar() { 50 } else { 3 } {
        for arguments in [&serve[..], &check] {
            let (code, said) = Node::run(arguments);
            assert_eq!(code, IN_USE, "{said}");
            row.rounds += 1;
        }
    }
    let so_far = writers.acked();
    writers.wait_acked(so_far + 100).await;
    node.kill();
    ledger.close(writers).await;
    restart(node).await;
    ledger.judge(node).await;
    ledger.writes.assert_whole("after second processes");
    row.writes = ledger.writes;
    row.longest_gap_ms = Some(ledger.longest_gap_ms);
    row.figures = format!(
        "{} of {} second processes, half of them kvnode check, refused with exit code 4 while the first was under load",
        row.rounds, row.rounds
    );
    row.save();
}

/// Often the second one reads the log while the first one writes it, and gives up; so they get some tries.
#[tokio::test(flavor = "multi_thread")]
async fn a11_control_two_processes_on_a_directory_ruin_it() {
    for tried in 1..=10 {
        if let Some(found) = two_at_once().await {
            let found = format!("try {tried}: {found}");
            return report::save_control("A11", "one process to a data directory", &found);
        }
    }
    panic!("ten pairs of processes did no harm");
}

/// Two nodes at work in one directory; what that did to it, if anything.
async fn two_at_once() -> Option<String> {
    let cluster = Cluster::start(Shape {
        faults: "off=lock",
        ..Shape::default()
    })
    .await;
    let node = cluster.primary(0);
    let port = Port::take();
    let listen = format!("127.0.0.1:{}", port.number);
    let mut second = Node::new(cluster.dir(), "second", Port::take(), &cluster.map);
    second.data.clone_from(&node.data);
    second.address.clone_from(&node.address);
    second.set_faults("off=lock");
    let mut ledger = Ledger::default();
    let writers = Writers::start(&cluster, load(0));
    writers.wait_acked(200).await;
    second.spawn(&[SMALL, &["--listen", &listen]].concat());
    eventually("the second one takes writes or gives up", async || {
        (!second.is_running() || second.said().contains("takes writes")).then_some(())
    })
    .await;
    let so_far = writers.acked();
    eventually("the first one goes on or gives up", async || {
        (!node.is_running() || writers.acked() > so_far + 200).then_some(())
    })
    .await;
    second.kill();
    node.kill();
    ledger.close(writers).await;
    node.set_faults("");
    node.spawn(&[]);
    if let Some(code) = ready_or_ended(node).await {
        assert_eq!(code, DATA_REFUSED, "{}", node.said());
        let acked = ledger.oracle().acked;
        return Some(format!(
            "the log was ruined: the next start refused it (exit code 3), with {acked} acknowledged writes in it"
        ));
    }
    ledger.judge(node).await;
    let lost = ledger.writes.lost;
    (lost > 0).then(|| format!("{lost} keys with acknowledged writes lost"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
