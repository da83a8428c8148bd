//! B14: pulls by somebody who is no replica of the shard, or claims what no replica has. Their word counts for
//! nothing: no acknowledgement, no end of a reign, no trouble for the node.

use kvclient::position::Position;

use super::{level, write};
use crate::support::{
    bar,
    cluster::{Cluster, Node, Shape},
    http::Ask,
    report::{self, Row},
    seeded,
};

#[tokio::test(flavor = "multi_thread")]
async fn b14_forged_pulls_count_for_nothing() {
    let mut row = Row::begin("B14");
    let rounds = if bar() { 200 } else { 10 };
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    write(primary, "k", 20).await;
    let end = level(primary, replica).await;
    let truth = Claim::of(primary, &replica.address).await;
    let (mut rng, mut sent, mut refused) = (seeded(), 0, 0);
    for round in 0..rounds {
        for (what, claim) in forgeries(&truth, end, &mut rng) {
            let answer = primary.send(claim.ask()).await;
            assert!(answer.status < 500, "{what}: {}", answer.text());
            sent += 1;
            refused += usize::from(answer.status != 200);
        }
        let counted = counted(primary).await;
        assert_eq!(counted.len(), 1, "{counted:?}");
        assert_eq!(counted[0].0, replica.address);
        assert!(counted[0].1 <= primary.at("durable").await, "{counted:?}");
        let position = primary.put("goes on", format!("{round}")).await;
        assert_eq!(position.epoch, end.epoch, "the reign goes on");
    }
    assert_eq!(primary.status().await["largest_epoch"], end.epoch);
    level(primary, replica).await;
    row.rounds = sent;
    row.writes.acked = 20 + rounds;
    row.figures = format!(
        "{sent} forged pulls, {refused} refused and the rest served as plain reading: 0 counted, 0 reigns ended"
    );
    row.save();
}

#[tokio::test(flavor = "multi_thread")]
async fn b14_control_a_stranger_s_pulls_count_and_end_the_reign() {
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    primary.set_faults("off=ack_counting");
    cluster.start_all().await;
    write(primary, "k", 20).await;
    level(primary, replica).await;
    let truth = Claim::of(primary, "stranger.example:1").await;
    primary.send(truth.ask()).await;
    let counted = counted(primary).await.len();
    let newer = Claim {
        lineage: format!("{},9.21.00000000000000aa", truth.lineage),
        ..truth
    };
    primary.send(newer.ask()).await;
    let why = primary.wait_not_ready("epoch 9").await;
    assert!(counted > 1, "{why}");
    let found = format!(
        "{} of 1 strangers counted as replicas, and one ended the primary's reign",
        counted - 1
    );
    report::save_control("B14", "only replicas of the map count", &found);
}

/// What a pull says of who sends it.
#[derive(Debug, Clone)]
struct Claim {
    after: String,
    node_id: String,
    address: String,
    history: String,
    lineage: String,
    crc: String,
}

impl Claim {
    /// What a replica at `address` that has all of a node's log would say.
    async fn of(node: &Node, address: &str) -> Self {
        let status = node.status().await;
        let text = |name: &str| status[name].as_str().expect("text").to_owned();
        let durable: Position = text("durable").parse().expect("a position");
        let blank = Self {
            after: durable.seq.to_string(),
            node_id: format!("{:016x}", 0xf0e_u64),
            address: address.to_owned(),
            history: text("history"),
            lineage: String::new(),
            crc: "00000000".into(),
        };
        let asked = node.send(blank.ask()).await;
        let lineage = asked.header("kv-lineage").expect("a lineage").to_owned();
        let mut log = bytes::Bytes::from(node.log_bytes(0).await);
        let mut crc = 0;
        while !log.is_empty() {
            crc = kvclient::wire::log::Frame::split_from(&mut log)
                .expect("a frame")
                .header
                .crc;
        }
        Self {
            lineage,
            crc: format!("{crc:08x}"),
            ..blank
        }
    }

    fn ask(&self) -> Ask {
        let uri = format!("/log?after={}&max_bytes=1000&wait_ms=0", self.after);
        Ask::new("GET", uri)
            .header("kv-node-id", &self.node_id)
            .header("kv-node-address", &self.address)
            .header("kv-history", &self.history)
            .header("kv-lineage", &self.lineage)
            .header("kv-last-crc", &self.crc)
    }
}

/// Every way to lie, told apart by what is wrong.
fn forgeries(truth: &Claim, end: Position, rng: &mut fastrand::Rng) -> Vec<(&'static str, Claim)> {
    let id = |rng: &mut fastrand::Rng| format!("{:016x}", rng.u64(..));
    let with = |change: &dyn Fn(&mut Claim)| {
        let mut claim = truth.clone();
        change(&mut claim);
        claim
    };
    let (stranger, other) = (id(rng), id(rng) + &id(rng));
    let wrong_crc = format!("{:08x}", rng.u32(1..));
    let ahead = (end.seq + 1 + rng.u64(..1 << 40)).to_string();
    let newer = format!(
        "{},{}.{}.{}",
        truth.lineage,
        end.epoch + 1,
        end.seq + 1,
        id(rng)
    );
    let huge = format!("{},{}.{}.{}", truth.lineage, u32::MAX, u64::MAX, id(rng));
    vec![
        (
            "an address that is not in the map",
            with(&|claim| {
                claim.node_id.clone_from(&stranger);
                claim.address = "stranger.example:1".into();
            }),
        ),
        (
            "a stranger who knows a newer reign",
            with(&|claim| {
                claim.address = "stranger.example:1".into();
                claim.lineage.clone_from(&newer);
            }),
        ),
        (
            "a position ahead",
            with(&|claim| claim.after.clone_from(&ahead)),
        ),
        (
            "the largest position",
            with(&|claim| claim.after = u64::MAX.to_string()),
        ),
        (
            "more than the largest",
            with(&|claim| claim.after = "99999999999999999999".into()),
        ),
        (
            "another history",
            with(&|claim| claim.history.clone_from(&other)),
        ),
        (
            "another history that knows a newer reign",
            with(&|claim| {
                claim.history.clone_from(&other);
                claim.lineage.clone_from(&huge);
            }),
        ),
        (
            "other bytes",
            with(&|claim| claim.crc.clone_from(&wrong_crc)),
        ),
        (
            "in the middle of a frame",
            with(&|claim| claim.after = (end.seq - 3).to_string()),
        ),
        ("no reigns", with(&|claim| claim.lineage.clear())),
        (
            "reigns that are none",
            with(&|claim| claim.lineage = "0.0.0,1.1.1".into()),
        ),
        (
            "a node id that is none",
            with(&|claim| claim.node_id = "-1".into()),
        ),
    ]
}

/// Who counts as a replica, and how far.
async fn counted(node: &Node) -> Vec<(String, Position)> {
    let status = node.status().await;
    let replicas = status["replicas"].as_array().expect("a list");
    let one = |replica: &serde_json::Value| {
        let text = |name: &str| replica[name].as_str().expect("text").to_owned();
        (
            text("address"),
            text("durable").parse().expect("a position"),
        )
    };
    replicas.iter().map(one).collect()
}
