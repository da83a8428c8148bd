//! Looking for keys, and what is said of one: its value in three views, and which node has it and why.

use super::{
    browser::Browser,
    desk::Desk,
    tab::{Tab, page_of_key},
};
use crate::support::{
    cluster::{Cluster, Shape},
    http::Ask,
};

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_page_by_page_and_shown_in_three_views() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    for number in 0..120 {
        node.put(&format!("many:{number:03}"), "1").await;
    }
    let position = node
        .put("{tag}:json", r#"{"n":12345678901234567890,"n":[]}"#)
        .await;
    let tab = desk.tab().await;
    tab.fill("#search-text", "many:").await;
    tab.click("#search [type=submit]").await;
    tab.until_shown("#found", "50 keys on page 1").await;
    tab.click("#page-next").await;
    tab.until_shown("#key-list", "many:099").await;
    tab.click("#page-next").await;
    tab.until_shown("#found", "20 keys on page 3").await;
    assert!(tab.holds("document.querySelector('#page-next').disabled"));
    tab.click("#page-back").await;
    tab.until_shown("#key-list", "many:050").await;

    tab.fill("#search-text", "%7Btag%7D").await;
    tab.click("#search-escapes").await;
    tab.click("#search [type=submit]").await;
    tab.click_text("#key-list button", "{tag}:json").await;
    tab.until_shown("#entry .value", "\"n\": 12345678901234567890,\n  \"n\": []")
        .await;
    let facts = tab.text("#entry .facts");
    for part in [
        &*position.to_string(),
        "33 bytes",
        "never",
        "the hash of tag (the part in braces)",
        "s0",
    ] {
        assert!(facts.contains(part), "{part} in {facts}");
    }
    tab.click_text("#entry .segments button", "Hex").await;
    tab.until_shown("#entry .value", "000000  7b 22 6e 22 3a 31")
        .await;
    tab.click_text("#entry .segments button", "Text").await;
    tab.until_shown("#entry .value", r#"{"n":12345678901234567890,"n":[]}"#)
        .await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_shard_leads_to_its_owner() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let shape = Shape {
        shards: 2,
        ..Shape::default()
    };
    let cluster = Cluster::start(shape).await;
    let (here, owner) = (cluster.primary(0), cluster.primary(1));
    // Bytes that are no text, and signs that have a meaning in addresses.
    let tag = cluster.key_in(1, "far");
    let escaped = format!("%7B{tag}%7D%23%26%3F%25%00%FF");
    let put = Ask::new("PUT", format!("/kv?key={escaped}")).body("found");
    assert_eq!(owner.send(put).await.status, 204);
    let tab = Tab::new(&browser, "");
    tab.open(&page_of_key(&here.address, &escaped)).await;
    tab.until_shown("#entry .notice", "belongs to s1").await;
    let link = tab.value("document.querySelector('#owner').href");
    assert_eq!(link, page_of_key(&owner.address, &escaped));
    tab.click("#owner").await;
    tab.until(&format!("location.host === '{}'", owner.address))
        .await;
    tab.until_shown("#entry .value", "found").await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_only_and_names_the_primary() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let cluster = Cluster::start(Shape::pair()).await;
    let (primary, replica) = (cluster.primary(0), cluster.replica(0, 0));
    let position = primary.put("a", "value").await;
    replica.wait_visible(position, "the replica has it").await;
    let tab = Tab::new(&browser, "");
    tab.open(&page_of_key(&replica.address, "a")).await;
    tab.until_shown("#entry .value", "value").await;
    assert!(tab.text("#entry .notice").contains("Read-only"));
    let buttons = tab.value(
        "[...document.querySelectorAll('#entry .actions button')].map(node => node.textContent)",
    );
    assert_eq!(buttons, serde_json::json!(["Reload"]));
    tab.fill("#search-text", "absent").await;
    tab.click("#search-open").await;
    tab.until_shown("#entry", "There is no such key").await;
    assert!(!tab.holds("document.querySelector('#entry textarea')"));
    tab.click("#owner").await;
    tab.until(&format!("location.host === '{}'", primary.address))
        .await;
    tab.until("document.querySelector('#entry textarea')").await;
    tab.assert_no_errors();
}

/// The keys of before stayed, and "Next" went on behind them in the search that had failed.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_search_next_went_on_in_the_one_before() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    for number in 0..60 {
        desk.node().put(&format!("a:{number:02}"), "1").await;
    }
    let busy = "const real = window.fetch; window.fetch = (path, options) => \
        window.isBusy && String(path).startsWith('/kv?prefix') \
            ? Promise.resolve(Response.json({ error: 'overloaded', message: 'busy' }, { status: 503 })) \
            : real(path, options);";
    let tab = desk.tab_after(busy).await;
    tab.fill("#search-text", "a:").await;
    tab.click("#search [type=submit]").await;
    tab.until_shown("#found", "50 keys on page 1").await;
    // From the moment of the search on, there is nowhere to turn to until its keys are listed.
    let at_once = "document.querySelector('#search [type=submit]').click(); \
        document.querySelector('#page-next').disabled";
    assert_eq!(tab.value(at_once), true);
    tab.until_shown("#found", "50 keys on page 1").await;
    tab.value("window.isBusy = true");
    tab.fill("#search-text", "b:").await;
    tab.click("#search [type=submit]").await;
    tab.until_shown("#found", "busy").await;
    assert!(tab.holds("document.querySelector('#page-next').disabled"));
    assert_eq!(tab.text("#key-list"), "");
    // A page that fails is another matter: the list is still of that search.
    tab.value("window.isBusy = false");
    tab.fill("#search-text", "a:").await;
    tab.click("#search [type=submit]").await;
    tab.until_shown("#found", "50 keys on page 1").await;
    tab.value("window.isBusy = true");
    tab.click("#page-next").await;
    tab.until_shown("#found", "busy").await;
    tab.value("window.isBusy = false");
    tab.click("#page-next").await;
    tab.until_shown("#found", "10 keys on page 2").await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_text_was_said_to_be_hashed_whole() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let tab = desk.tab().await;
    for (key, hashed) in [
        ("%FF%7Btag%7D", "the hash of tag (the part in braces)"),
        ("%7B%FF%7Dx", "the hash of \\xff (the part in braces)"),
        ("%FF%7B%7D%7Ba%7D", "the hash of the whole key"),
        ("%7Bopen", "the hash of the whole key"),
    ] {
        tab.value(&format!("location.hash = '#key={key}'"));
        tab.until_shown("#entry .facts", hashed).await;
    }
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_another_day_was_shown_without_its_day() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let tab = desk.tab().await;
    let clock = |ms: &str| {
        tab.value(&format!(
            "import('/page/units.js').then(({{clock}}) => clock({ms}))"
        ))
    };
    let noon = "new Date(2024, 1, 29, 12, 34, 56).getTime()";
    assert_eq!(clock(noon), "29 Feb 2024, 12:34:56");
    let today = clock("new Date().setHours(12, 34, 56)");
    assert_eq!(today, "12:34:56");
}
