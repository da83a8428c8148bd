//! The live feed: it shows changes, stops when it is told to, forgets what is old, and outlives its node.

use bytes::Bytes;
use kvclient::{
    key::Key,
    wire::batch::{Action, Op},
};
use serde_json::json;

use super::desk::Desk;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_shows_changes_once_across_a_restart_of_the_node() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let tab = desk.tab().await;
    tab.until_shown("#feed-state", "Watching").await;
    node.put("first", "1").await;
    tab.until_shown("#feed", "first").await;
    node.kill();
    tab.until_shown("#feed-state", "Connection lost").await;
    node.start().await;
    // Before the page has found its way back, perhaps: it begins behind what it saw last.
    node.put("second", "2").await;
    assert_eq!(node.ask("DELETE", "/kv/first").await.status, 204);
    tab.until_shown("#feed .delete", "first").await;
    let seen = tab.value(
        "[...document.querySelectorAll('#feed li')].map(line => line.children[2].textContent)",
    );
    assert_eq!(seen, json!(["first", "second", "first"]), "newest first");
    tab.click("#feed .put:last-child button").await;
    tab.until_shown("#entry", "There is no such key").await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_paused_filtered_and_bounded() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let tab = desk.tab().await;
    tab.until_shown("#feed-state", "Watching").await;
    tab.click("#feed-pause").await;
    tab.until_shown("#feed-state", "Paused").await;
    node.put("paused", "1").await;
    tab.click("#feed-pause").await;
    // What came meanwhile is in the log, and shown now.
    tab.until_shown("#feed", "paused").await;
    for number in 0..260 {
        node.put(&format!("many:{number}"), "1").await;
    }
    tab.until_shown("#feed li:first-child", "many:259").await;
    let lines = tab.value("document.querySelectorAll('#feed li').length");
    assert_eq!(lines, 200);

    tab.fill("#feed-prefix", "only:").await;
    tab.click("#feed-form [type=submit]").await;
    tab.until("document.querySelectorAll('#feed li').length === 0")
        .await;
    tab.until_shown("#feed-state", "Watching").await;
    node.put("other:1", "1").await;
    node.put("only:1", "1").await;
    tab.until_shown("#feed", "only:1").await;
    assert!(!tab.text("#feed").contains("other:1"));
    tab.assert_no_errors();
}

/// More than anyone could read: the page stops by itself, says so, and goes on from then on when it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_pauses_the_feed() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let tab = desk.tab().await;
    tab.until_shown("#feed-state", "Watching").await;
    let puts: Vec<Op> = (0..1_000)
        .map(|number| put(&format!("flood:{number}")))
        .collect();
    eventually("the flood is noticed", async || {
        node.batch(&puts).await;
        tab.text("#feed-state")
            .contains("Paused: more than 2,000")
            .then_some(())
    })
    .await;
    tab.click("#feed-pause").await;
    tab.until_shown("#feed-state", "Watching").await;
    node.put("calm", "1").await;
    tab.until_shown("#feed", "calm").await;
    tab.assert_no_errors();
}

fn put(key: &str) -> Op {
    let key = Key::copy_from(key.as_bytes()).expect("a key");
    let value = Bytes::from_static(b"1");
    Op::new(
        key,
        Action::Put {
            value,
            ttl_ms: None,
        },
    )
}
