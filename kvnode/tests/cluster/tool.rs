//! The tool `kv` beside real nodes: what it says of them is so.
//!
//! It is built with the workspace; where it is not there, as with `-p kvnode` alone, this is skipped.

use std::{path::Path, process::Command};

use kvclient::{
    key::Key,
    wire::batch::{Action, Op},
};

use crate::support::{
    cluster::{Cluster, Shape},
    report,
};

/// Runs `kv` at a cluster: exit code and what it printed; `None` if it is not there.
fn kv(cluster: &Cluster, arguments: &[&str]) -> Option<(i32, String)> {
    kv_at(&cluster.primary(0).map, arguments)
}

fn kv_at(map: &Path, arguments: &[&str]) -> Option<(i32, String)> {
    let binary = Path::new(env!("CARGO_BIN_EXE_kvnode")).with_file_name("kv");
    if !binary.exists() {
        report::save_skipped("tool", "the tool kv is not built");
        return None;
    }
    let output = Command::new(binary)
        .arg("--map")
        .arg(map)
        .args(arguments)
        .output()
        .expect("kv runs");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Some((output.status.code().unwrap_or(-1), text))
}

/// Stores entries, half of which are written together.
async fn fill(cluster: &Cluster) {
    let put = |n: usize| {
        let value = vec![b'v'; n % 300].into();
        let key = Key::new(format!("key:{n}")).expect("a key");
        Op::new(
            key,
            Action::Put {
                value,
                ttl_ms: n.is_multiple_of(5).then_some(600_000),
            },
        )
    };
    let (shards, primaries) = (cluster.shape.shards, 0..cluster.shape.shards);
    for shard in primaries {
        let ops = (0..400).map(put);
        let own: Vec<Op> = ops
            .filter(|op| crate::support::shard_of(op.key.as_bytes(), shards) == shard)
            .collect();
        for ops in own.chunks(50) {
            let results = cluster.primary(shard).batch(ops).await;
            assert!(
                results.iter().all(|result| result.status == 204),
                "{results:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_follow_are_equal() {
    let cluster = Cluster::start(Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    })
    .await;
    fill(&cluster).await;
    for arguments in [&["verify"][..], &["verify", "--deep"]] {
        let Some((code, text)) = kv(&cluster, arguments) else {
            return;
        };
        assert_eq!(code, 0, "{arguments:?}: {text}");
        assert_eq!(text.matches("equal").count(), 2, "{text}");
    }
    // A replica that stands still never gets there.
    cluster.replica(0, 0).pause();
    cluster
        .primary(0)
        .put(&cluster.key_in(0, "late"), "1")
        .await;
    let (code, text) =
        kv(&cluster, &["verify", "--wait", "1s", "--timeout", "500ms"]).expect("it is there");
    cluster.replica(0, 0).resume();
    assert_eq!(code, 4, "{text}");
    assert_eq!(text.matches("equal").count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong_and_nothing_else() {
    let shape = Shape {
        shards: 2,
        replicas: 1,
        flags: &["--max-connections", "100"],
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let Some((code, text)) = kv(&cluster, &["doctor"]) else {
        return;
    };
    // How full the disk of this machine is, is not this test's.
    let is_about_disk = |line: &&str| line.contains("the disk of its data");
    let other: Vec<&str> = text.lines().filter(|line| !is_about_disk(line)).collect();
    assert_eq!(other.len(), 1, "{text}");
    assert!(other[0].contains("4 nodes of 2 shards"), "{text}");
    assert!(code == 0 || text.contains("the disk of its data"), "{text}");

    let stopped = cluster.replica(1, 0);
    stopped.stop().await;
    cluster.replica(0, 0).stop().await;
    cluster
        .replica(0, 0)
        .write_map(&cluster.map.replace("version = 1", "version = 2"));
    cluster.replica(0, 0).spawn(&["--max-value-size", "2MiB"]);
    cluster.replica(0, 0).wait_ready().await;
    let (code, text) = kv(&cluster, &["doctor"]).expect("it is there");
    assert_eq!(code, 1, "{text}");
    let map = cluster.primary(0).map.display().to_string();
    for part in [
        &format!("{}: does not answer", stopped.address)[..],
        &format!(
            "{}: its --max-value-size is 2.0 MiB",
            cluster.replica(0, 0).address
        ),
        &format!("{}: its map 1-", cluster.primary(1).address),
        &format!("{map}: 1-"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_compared_while_their_primary_is_written_to() {
    let cluster = Cluster::start(Shape::pair()).await;
    fill(&cluster).await;
    let map = cluster.primary(0).map.clone();
    let compared = tokio::task::spawn_blocking(move || {
        let arguments = [&["verify"][..], &["verify", "--deep"], &["verify"]];
        arguments.map(|arguments| kv_at(&map, arguments))
    });
    let primary = cluster.primary(0);
    let written = async {
        for n in 0.. {
            primary.put(&format!("key:{}", n % 50), n.to_string()).await;
        }
    };
    let ran = tokio::select! {
        ran = compared => ran.expect("it does not panic"),
        () = written => unreachable!("it goes on for ever"),
    };
    for (code, text) in ran.into_iter().flatten() {
        assert_eq!(code, 0, "{text}");
    }
}

/// A replica that leaves out half of what is written together.
#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_entries_is_found() {
    let cluster = Cluster::prepare(Shape::pair());
    cluster.replica(0, 0).set_faults("off=apply_all");
    cluster.start_all().await;
    fill(&cluster).await;
    let end = cluster.primary(0).at("visible").await;
    cluster
        .replica(0, 0)
        .wait_visible(end, "it has the log")
        .await;
    let Some((code, text)) = kv(&cluster, &["verify", "--deep", "--show", "3"]) else {
        return;
    };
    assert_eq!(code, 1, "{text}");
    assert_eq!(
        text.matches("it has nothing, the primary ").count(),
        3,
        "{text}"
    );
    assert!(text.contains("differs       200 keys differ"), "{text}");
    let (code, text) = kv(&cluster, &["verify"]).expect("it is there");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("entries where the primary has"), "{text}");
}
