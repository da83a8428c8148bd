//! The cluster at a glance: who is down, in words and not by colour alone, and that it comes back by itself.

use super::{
    browser::Browser,
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
    let Some(browser) = Browser::start() else {
        return;
    };
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    let tab = Tab::new(&browser, "");
    tab.open(&page(&node.address)).await;
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
