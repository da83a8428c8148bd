//! The pictures of the page in `docs/`, taken anew by
//! `cargo test -p kvnode --test page -- --ignored --nocapture pictures`, which says where they are.

use std::{fs, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::time::{Instant, sleep};

use super::{
    browser::Browser,
    tab::{Look, Tab, page_of_key},
};
use crate::support::{
    cluster::{Cluster, Node, Shape},
    http::Ask,
};

const NAMES: &[&str] = &[
    "ada", "bob", "cleo", "dora", "emil", "fay", "gus", "hedy", "ivan", "jane",
];
/// Long enough for lines in the charts.
const LOAD_FOR: Duration = Duration::from_secs(100);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes files for people, and takes its time"]
async fn pictures() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let shape = Shape {
        shards: 3,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let node = cluster.primary(0);
    for (number, name) in NAMES.iter().cycle().take(60).enumerate() {
        let user = format!(r#"{{"name":"{name}","visits":{number},"tags":["beta","eu"]}}"#);
        store(&cluster, &format!("user:{number:04}"), user, "").await;
    }
    let key = cluster.key_in(0, "user:00");
    let user = r#"{"name":"ada","email":"ada@example.org","visits":412,"tags":["beta","eu"]}"#;
    store(&cluster, &key, user.into(), "").await;
    let tab = Tab::new(&browser, "");
    tab.open(&page_of_key(&node.address, &key)).await;
    load(&cluster, node).await;
    tab.click("#search [type=submit]").await;
    tab.until_shown("#key-list", "session:").await;
    tab.value("document.activeElement.blur()");
    for (look, name) in [(Look::Desktop, "page.png"), (Look::Phone, "page-phone.png")] {
        tab.look(look);
        tab.until_shown("#entry .value", "ada@example.org").await;
        let path = std::env::temp_dir().join(name);
        let png = STANDARD.decode(tab.picture()).expect("base64");
        fs::write(&path, png).expect("a file");
        eprintln!("{}", path.display());
    }
}

/// Stores an entry in whichever shard it belongs to.
async fn store(cluster: &Cluster, key: &str, value: String, query: &str) {
    let shard = crate::support::shard_of(key.as_bytes(), cluster.shape.shards);
    let put = Ask::new("PUT", format!("/kv/{key}{query}")).body(value);
    assert_eq!(cluster.primary(shard).send(put).await.status, 204);
}

/// Reads and writes as a small shop would: sessions that expire, counters that are read more than written.
async fn load(cluster: &Cluster, node: &Node) {
    let until = Instant::now() + LOAD_FOR;
    let mut random = fastrand::Rng::with_seed(7);
    while Instant::now() < until {
        let number = random.u32(..60);
        let session = format!("session:{:08x}", random.u32(..));
        store(
            cluster,
            &session,
            format!(r#"{{"user":{number},"seen":"{}"}}"#, "x".repeat(200)),
            "?ttl=20m",
        )
        .await;
        let visits = cluster.key_in(0, &format!("visits:{number}:"));
        node.ask("POST", &format!("/kv/{visits}?incr=1")).await;
        for _ in 0..random.u32(2..12) {
            node.ask("GET", &format!("/kv/{visits}")).await;
        }
        sleep(Duration::from_millis(random.u64(80..200))).await;
    }
}
