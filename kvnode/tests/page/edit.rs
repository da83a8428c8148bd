//! Changing entries: made, changed, given a time and deleted, and never over what somebody else wrote meanwhile.

use super::{
    desk::Desk,
    tab::{Tab, page_of_key},
};
use crate::support::{cluster::Node, http::Ask};

async fn save(tab: &Tab<'_>, value: &str) {
    tab.fill("#edit-value", value).await;
    tab.click("#entry .editor [type=submit]").await;
}

async fn edit(tab: &Tab<'_>, value: &str) {
    tab.click_text("#entry .actions button", "Edit").await;
    save(tab, value).await;
}

async fn stored(node: &Node, key: &str) -> Option<String> {
    let value = node.get(key).await?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_made_changed_given_a_time_and_deleted() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let tab = desk.tab().await;
    tab.fill("#search-text", "mine").await;
    tab.click("#search-open").await;
    save(&tab, "one\n two").await;
    tab.until_shown("#entry .said", "Saved").await;
    assert_eq!(stored(node, "mine").await.as_deref(), Some("one\n two"));
    tab.until_shown("#key-list", "mine").await;

    tab.click_text("#entry .actions button", "Edit").await;
    tab.value(
        "const expiry = document.querySelector('#edit-expiry'); expiry.value = 'after'; \
        expiry.dispatchEvent(new Event('change'))",
    );
    tab.fill("#entry .short", "90 seconds").await;
    tab.click("#entry .editor [type=submit]").await;
    tab.until_shown("#entry .editor .said", "A time is a number")
        .await;
    tab.fill("#entry .short", "90s").await;
    save(&tab, "timed").await;
    tab.until_shown("#ttl", "in 1 m").await;
    let ttl = async || {
        let answer = node.ask("GET", "/kv/mine").await;
        answer
            .header("kv-ttl-ms")
            .map(|ms| ms.parse::<u64>().expect("ms"))
    };
    assert!(
        ttl()
            .await
            .is_some_and(|ms| (60_000..=90_000).contains(&ms))
    );
    // Without a word about it the time stays.
    edit(&tab, "still timed").await;
    tab.until_shown("#entry .value", "still timed").await;
    assert!(
        ttl()
            .await
            .is_some_and(|ms| (30_000..=90_000).contains(&ms))
    );

    tab.click_text("#entry .actions button", "Edit").await;
    tab.click("#entry .editor .check input").await;
    save(&tab, "00 ff0A").await;
    tab.until_shown("#entry .value", "000000  00 ff 0a").await;
    assert_eq!(
        node.get("mine").await.expect("it is there"),
        &b"\x00\xff\x0a"[..]
    );

    tab.click_text("#entry .actions button", "Delete").await;
    tab.click_text("dialog[open] button", "Cancel").await;
    assert!(node.get("mine").await.is_some());
    tab.click_text("#entry .actions button", "Delete").await;
    tab.click_text("dialog[open] button", "Delete").await;
    tab.until_shown("#entry .said", "Deleted").await;
    assert_eq!(node.get("mine").await, None);
    tab.until_shown("#found", "no keys").await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_do_not_overwrite_each_other() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("shared", "before").await;
    let (one, other) = (desk.empty_tab(""), desk.empty_tab(""));
    for tab in [&one, &other] {
        tab.open(&page_of_key(&node.address, "shared")).await;
        tab.until_shown("#entry .value", "before").await;
    }
    edit(&one, "by one").await;
    one.until_shown("#entry .said", "Saved").await;
    edit(&other, "by other").await;
    other.until_shown("dialog", "by one").await;
    assert!(other.text("dialog").contains("by other"), "both are shown");
    // Escape changes nothing, and what was typed is still there.
    other.press("Escape", 0);
    other.until("!document.querySelector('dialog')").await;
    assert_eq!(
        other.value("document.querySelector('#edit-value').value"),
        "by other"
    );
    assert_eq!(stored(node, "shared").await.as_deref(), Some("by one"));
    other.click("#entry .editor [type=submit]").await;
    other
        .click_text("dialog[open] button", "Replace it with yours")
        .await;
    other.until_shown("#entry .said", "Saved").await;
    assert_eq!(stored(node, "shared").await.as_deref(), Some("by other"));

    edit(&one, "late").await;
    one.click_text("dialog[open] button", "Keep what is there")
        .await;
    one.until_shown("#entry .value", "by other").await;
    assert_eq!(stored(node, "shared").await.as_deref(), Some("by other"));
    for tab in [&one, &other] {
        tab.assert_no_errors();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_or_made_meanwhile_is_a_conflict_too() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("gone", "old").await;
    let tab = desk.tab_of_key("gone", "").await;
    tab.click_text("#entry .actions button", "Edit").await;
    assert_eq!(node.ask("DELETE", "/kv/gone").await.status, 204);
    save(&tab, "mine").await;
    tab.until_shown("dialog", "The key was deleted").await;
    tab.click_text("dialog[open] button", "Replace it with yours")
        .await;
    tab.until_shown("#entry .said", "Saved").await;
    assert_eq!(stored(node, "gone").await.as_deref(), Some("mine"));

    // Deleting what has changed since it was shown.
    node.put("gone", "newer").await;
    tab.click_text("#entry .actions button", "Delete").await;
    tab.click_text("dialog[open] button", "Delete").await;
    tab.until_shown("#entry .said", "Not deleted").await;
    tab.until_shown("#entry .value", "newer").await;
    assert_eq!(stored(node, "gone").await.as_deref(), Some("newer"));

    // Two make the same new key.
    tab.fill("#search-text", "new").await;
    tab.click("#search-open").await;
    tab.until("document.querySelector('#edit-value')").await;
    let first = Ask::new("PUT", "/kv/new").body("first");
    assert_eq!(node.send(first).await.status, 204);
    save(&tab, "second").await;
    tab.until_shown("dialog", "first").await;
    tab.press("Escape", 0);
    assert_eq!(stored(node, "new").await.as_deref(), Some("first"));
    tab.assert_no_errors();
}
