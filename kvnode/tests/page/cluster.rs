//! The cluster at a glance: who is down, in words and not by colour alone, and that it comes back by itself.

use super::{
    browser::Browser,
    desk::Desk,
    tab::{Tab, page},
};
use crate::support::cluster::{Cluster, Shape, map_text};

/// The row of a node.
fn row(address: &str) -> String {
    format!(
        "[...document.querySelectorAll('#nodes .node')].find(row => row.textContent.includes('{address}'))"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_goes_red_and_green_again() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let shape = Shape {
        shards: 2,
        replicas: 1,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let other = cluster.primary(1);
    let tab = Tab::new(&browser, "");
    tab.open(&page(&cluster.primary(0).address)).await;
    for node in cluster.nodes() {
        let row = row(&node.address);
        tab.until(&format!("{row}?.matches('.good')")).await;
        assert!(tab.holds(&format!("{row}.textContent.includes('✓ ready')")));
    }
    tab.until_shown("#glance", "4 of 4 up").await;
    let good = tab.value(&format!(
        "getComputedStyle({}.querySelector('.pill')).color",
        row(&other.address)
    ));
    other.kill();
    let row = row(&other.address);
    tab.until(&format!(
        "{row}.matches('.bad') && {row}.textContent.includes('✕ down')"
    ))
    .await;
    tab.until_shown("#glance", "3 of 4 up").await;
    tab.until_shown("#glance", "1 of 2").await;
    let bad = tab.value(&format!(
        "getComputedStyle({row}.querySelector('.pill')).color"
    ));
    assert_ne!(good, bad, "down has the colour of ready");
    assert!(!tab.text("#nodes .bad .why").is_empty(), "it says why");
    other.start().await;
    tab.until(&format!("{row}.matches('.good')")).await;
    tab.until_shown("#glance", "4 of 4 up").await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_told_and_comes_back_by_itself() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let tab = desk.tab().await;
    assert!(tab.holds("document.querySelector('#lost').hidden"));
    node.kill();
    tab.until("!document.querySelector('#lost').hidden").await;
    assert!(tab.text("#lost").contains("Node lost"));
    assert!(tab.holds("document.querySelector('#cluster').matches('.stale')"));
    node.start().await;
    tab.until("document.querySelector('#lost').hidden").await;
    tab.until("!document.querySelector('#cluster').matches('.stale')")
        .await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_map_of_the_same_version_is_a_conflict() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let cluster = Cluster::prepare(Shape::pair());
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let addresses = [primary.address.clone(), replica.address.clone()];
    // The same nodes and version, and yet another map.
    let other = map_text(1, &addresses, 2) + "zone = \"a\"\n";
    replica.write_map(&other);
    primary.start().await;
    replica.spawn(&[]);
    let tab = Tab::new(&browser, "");
    tab.open(&page(&primary.address)).await;
    tab.until_shown("#warnings", "Map conflict").await;
    assert!(tab.text("#warnings").contains(&replica.address));
    tab.assert_no_errors();
}

/// What is made of figures, word by word: asked of the page's own module.
#[tokio::test(flavor = "multi_thread")]
async fn every_trouble_has_its_word() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let tab = desk.tab().await;
    let replica = "{durable: '1.1', role: 'replica', state: 'ready', damaged: 0, recovering: false";
    for (node, verdict) in [
        (
            "{state: 'no answer: refused'}".to_owned(),
            "bad down: refused",
        ),
        (format!("{replica}, lag_ms: 999}}"), "good ready: "),
        (
            format!("{replica}, lag_ms: 1000, pull_trouble: 'why'}}"),
            "warn behind: why",
        ),
        (format!("{replica}, lag_ms: 5000}}"), "bad far behind: "),
        (format!("{replica}}}"), "warn never pulled: "),
        (
            format!("{replica}, lag_ms: 0, state: 'log has parted'}}"),
            "bad not ready: log has parted",
        ),
        (
            format!("{replica}, lag_ms: 0, recovering: true}}"),
            "warn recovering: ready",
        ),
        (
            format!("{replica}, lag_ms: 0, damaged: 2}}"),
            "bad damaged: 2 stored entries are damaged",
        ),
    ] {
        let judged = tab.value(&format!(
            "import('/page/judge.js').then(({{judge}}) => judge({node})).then(found => `${{found.kind}} ${{found.word}}: ${{found.why}}`)"
        ));
        assert_eq!(judged, verdict, "{node}");
    }
    for (nodes, warning) in [
        (
            "{address: 'a', map_version: '7-x', insecure_no_auth: true}",
            "a (insecure_no_auth)",
        ),
        (
            "{address: 'a', map_version: '7-x', tokens_trouble: 't.toml:1:1: no'}",
            "a goes by older tokens than those of its file: t.toml:1:1: no",
        ),
        (
            "{address: 'a', map_version: '7-x', certificates_trouble: 'node.pem is valid until then'}",
            "Certificates of a: node.pem is valid until then",
        ),
        ("{address: 'a', map_version: '7-y'}", "Map conflict: a"),
        ("{address: 'a', map_version: '8-x'}", "a has a newer map"),
        ("{address: 'a', map_version: '6-x'}", "a has an older map"),
        (
            "{address: 'p', map_version: '7-x', replicas: [{address: 'a', connected: false}]}, {address: 'a', durable: '1.1'}",
            "a has not pulled from its primary p",
        ),
    ] {
        let told = tab.value(&format!(
            "import('/page/judge.js').then(({{warnings}}) => warnings([{nodes}], '7-x'))"
        ));
        let told = told.as_array().expect("a list");
        assert!(
            told.len() == 1 && told[0].as_str().is_some_and(|text| text.contains(warning)),
            "{nodes}: {told:?}"
        );
    }
    tab.assert_no_errors();
}

/// The tile left out replicas of which no lag is known, and was green: those that are down, and those never level.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_lag_left_out_replicas_that_are_down() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let cluster = Cluster::prepare(Shape::pair());
    cluster.primary(0).start().await;
    let tab = Tab::new(&browser, "");
    tab.open(&page(&cluster.primary(0).address)).await;
    tab.until_shown("#glance .tile.warn", "1 replica not known")
        .await;
    cluster.replica(0, 0).start().await;
    tab.until_shown("#glance .tile.good", "Largest lag").await;
    tab.assert_no_errors();
}
