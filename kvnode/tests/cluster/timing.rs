//! `Kv-Timing: 1`: where the time of an op went, told by the node that did it.

use crate::support::{
    cluster::{Cluster, Node, Shape},
    http::{Answer, Ask},
};

/// Names of the parts in an answer; checks that none took longer than all.
fn parts(answer: &Answer) -> Vec<String> {
    let text = answer.header("server-timing").expect("Server-Timing");
    let part = |part: &str| {
        let (name, ms) = part.split_once(";dur=").expect("a duration");
        (name.to_owned(), ms.parse::<f64>().expect("milliseconds"))
    };
    let parts: Vec<_> = text.split(", ").map(part).collect();
    let total = parts.last().expect("a total").1;
    assert!(total > 0.0 && total < 20_000.0, "{text}");
    assert!(parts.iter().all(|(_, ms)| *ms <= total), "{text}");
    parts.into_iter().map(|(name, _)| name).collect()
}

async fn timed(node: &Node, ask: Ask) -> Answer {
    node.send(ask.header("kv-timing", "1")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_op_says_where_its_time_went() {
    let cluster = Cluster::start(Shape::pair()).await;
    let node = cluster.primary(0);
    let put = || Ask::new("PUT", "/kv/a").body("1");
    assert_eq!(
        parts(&timed(node, put()).await),
        ["body", "queue", "sync", "total"]
    );
    let acked = timed(node, put().header("kv-ack", "all")).await;
    assert_eq!(
        parts(&acked),
        ["body", "queue", "sync", "replicas", "total"]
    );
    let incr = timed(node, Ask::new("POST", "/kv/a?incr=4")).await;
    assert_eq!((parts(&incr).len(), incr.text().as_str()), (4, "5"));
    let get = timed(node, Ask::new("GET", "/kv/a")).await;
    assert_eq!(
        (parts(&get), get.text().as_str()),
        (vec!["lmdb".to_owned(), "total".to_owned()], "5")
    );
    let by_query = timed(node, Ask::new("GET", "/kv?key=a")).await;
    assert_eq!(parts(&by_query), ["lmdb", "total"]);
    // What changes nothing needs no sync of its own.
    let missed = timed(node, put().header("if-none-match", "*")).await;
    assert_eq!(
        (missed.status, parts(&missed)),
        (412, ["body", "queue", "total"].map(str::to_owned).to_vec())
    );
    let gone = timed(node, Ask::new("DELETE", "/kv/a")).await;
    assert_eq!((gone.status, parts(&gone).len()), (204, 4));
    let absent = timed(node, Ask::new("GET", "/kv/a")).await;
    assert_eq!(
        (absent.status, parts(&absent)),
        (404, vec!["lmdb".to_owned(), "total".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_is_told_nothing() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    node.put("a", "1").await;
    for value in [None, Some("0"), Some("yes")] {
        let ask = Ask::new("GET", "/kv/a");
        let ask = match value {
            Some(value) => ask.header("kv-timing", value),
            None => ask,
        };
        let answer = node.send(ask).await;
        assert_eq!(
            (answer.status, answer.header("server-timing")),
            (200, None),
            "{value:?}"
        );
    }
}
