//! A3: every state in which a crash between two syncs can leave the disk.
//!
//! A node is recorded (`record.rs`, `recorder.c`) from its first start on, through load, kill and restart. The record is
//! played to a model of a disk (`disk.rs`). Before each sync, and whenever something left that calls a seq durable,
//! images of the disk are made (`search.rs`): all that was synced, with some of what was not (`choice.rs`). On each the
//! data is recovered and judged (`image.rs`). So is what a replica does that catches up, which appends several frames
//! with one sync.

mod choice;
mod disk;
mod image;
mod record;
mod search;
mod trace;

use tokio::task::block_in_place;

use self::{
    choice::Effort,
    record::{Recorded, record_primary, record_replica},
    search::{Found, data_in, explore},
    trace::Recorder,
};
use crate::support::{
    bar,
    cluster::{Node, map_text},
    ports::Port,
    report::{self, Row},
};

/// The first run of this found that the name of the data directory was never synced: whatever had been acknowledged
/// could be gone with it.
#[tokio::test(flavor = "multi_thread")]
async fn a3_every_crash_state_opens_with_all_that_was_promised() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut row = Row::begin("A3");
    let Some(recorder) = Recorder::compile(dir.path()) else {
        return report::save_skipped("A3", "no C compiler");
    };
    let rounds = if bar() { 33 } else { 2 };
    let recorded = record_primary(&recorder, rounds, "").await;
    let mut found = block_in_place(|| explore(&recorded, effort(), usize::MAX));
    start_on_some(&recorded, &mut found).await;
    let mut figures = found.told("primary");
    if bar() {
        let replica = Recorder::compile(
            &tempfile::tempdir_in(dir.path())
                .expect("a directory")
                .keep(),
        );
        let recorded = record_replica(&replica.expect("it did before")).await;
        let more = block_in_place(|| explore(&recorded, effort(), usize::MAX));
        figures = format!("{figures}; {}", more.told("replica that catches up"));
        found.add(more);
    }
    row.rounds = found.states;
    row.writes.acked = found.promises;
    row.writes.lost = found.bad;
    row.figures = figures;
    assert_eq!(found.bad, 0, "{}", row.figures);
    row.save();
}

/// Without its syncs the log is not there when the power goes.
#[tokio::test(flavor = "multi_thread")]
async fn a3_control_a_log_that_is_not_synced_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(recorder) = Recorder::compile(dir.path()) else {
        return;
    };
    let recorded = record_primary(&recorder, 1, "off=sync").await;
    let found = block_in_place(|| explore(&recorded, effort(), 50));
    assert!(found.bad > 0, "{} states", found.states);
    let told = format!("{} of {} states bad", found.bad, found.states);
    report::save_control("A3", "the log is synced", &told);
}

fn effort() -> Effort {
    match bar() {
        true => Effort {
            all_of: 4,
            of_a_kind: 8,
            torn: 3,
        },
        false => Effort {
            all_of: 2,
            of_a_kind: 1,
            torn: 1,
        },
    }
}

/// Starts a real node on the images that were kept.
async fn start_on_some(recorded: &Recorded, found: &mut Found) {
    for (image, promised) in std::mem::take(&mut found.kept) {
        let port = Port::take();
        let map = map_text(1, &[format!("127.0.0.1:{}", port.number)], 1);
        let mut node = Node::new(image.path(), "node", port, &map);
        node.data = data_in(image.path(), recorded);
        node.start().await;
        let end = node.at("durable").await;
        for key in recorded.truth.keys() {
            let name = String::from_utf8_lossy(key);
            // Its own reign has begun behind the end that it found.
            let expected = recorded
                .truth
                .at(key, end.seq - 1)
                .map(|(_, value)| value.clone());
            assert_eq!(node.get(&name).await, expected, "{name} at {end}");
        }
        assert!(end.seq > promised, "{end}, but {promised} was promised");
        found.started += 1;
    }
}
