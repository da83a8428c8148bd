//! Answers that come late, badly or not at all while somebody changes an entry: nothing that was typed is lost, and
//! nobody is told more than is known.

use super::{desk::Desk, tab::Tab};

/// Keeps the answer to a PUT until `release()`, and counts the PUTs.
const HELD: &str = "const real = window.fetch; window.puts = 0; \
    window.fetch = async (path, options) => { \
        const isPut = options?.method === 'PUT'; \
        if (isPut) window.puts++; \
        const answer = await real(path, options); \
        if (isPut && window.puts === 1) await new Promise(done => window.release = done); \
        return answer; };";

/// Breaks requests of the method that `broken` names.
const BROKEN: &str = "const real = window.fetch; window.broken = ''; \
    window.fetch = (path, options) => (options?.method ?? 'GET') === window.broken && path.startsWith('/kv?key') \
        ? Promise.reject(new TypeError('broken')) : real(path, options);";

async fn begin_to_edit(tab: &Tab<'_>, text: &str) {
    tab.click_text("#entry .actions button", "Edit").await;
    tab.fill("#edit-value", text).await;
}

fn typed(tab: &Tab<'_>) -> serde_json::Value {
    tab.value("document.querySelector('#edit-value')?.value")
}

async fn choose_expiry(tab: &Tab<'_>, choice: &str) {
    tab.until("document.querySelector('#edit-expiry')").await;
    tab.value(&format!(
        "document.querySelector('#edit-expiry').value = '{choice}'; \
         document.querySelector('#edit-expiry').dispatchEvent(new Event('change'))"
    ));
}

/// Its end showed its own entry, whatever was shown and typed by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_took_long_destroyed_another_edit() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("other", "1").await;
    let tab = desk.tab_of_key("slow", HELD).await;
    tab.fill("#edit-value", "one").await;
    tab.click("#entry .editor [type=submit]").await;
    tab.until("window.release").await;
    tab.fill("#search-text", "other").await;
    tab.click("#search-open").await;
    tab.click_text("dialog[open] button", "Leave").await;
    tab.until_shown("#entry h3", "other").await;
    begin_to_edit(&tab, "draft").await;
    tab.value("window.release()");
    // The list is asked for again after a save.
    tab.until_shown("#key-list", "slow").await;
    assert_eq!(tab.text("#entry h3"), "other");
    assert_eq!(typed(&tab), "draft");
    tab.click("#entry .editor [type=submit]").await;
    tab.until_shown("#entry .said", "Saved").await;
    assert_eq!(node.get("other").await.as_deref(), Some(&b"draft"[..]));
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_during_a_save_was_lost() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("k", "0").await;
    let tab = desk.tab_of_key("k", HELD).await;
    begin_to_edit(&tab, "one").await;
    tab.click("#entry .editor [type=submit]").await;
    tab.until("window.release").await;
    tab.fill("#edit-value", "one and two").await;
    tab.value("window.release()");
    tab.until_shown("#entry .said", "Saved").await;
    assert_eq!(typed(&tab), "one and two");
    // It goes on from what was saved: no conflict with oneself.
    tab.click("#entry .editor [type=submit]").await;
    tab.until_shown("#entry .value", "one and two").await;
    assert_eq!(node.get("k").await.as_deref(), Some(&b"one and two"[..]));
    tab.assert_no_errors();
}

/// The second save met the first one's entry, and called it somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_key_saved_twice() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    desk.node().put("k", "0").await;
    let tab = desk.tab_of_key("k", HELD).await;
    begin_to_edit(&tab, "one").await;
    for _ in 0..3 {
        tab.press("Enter", 2);
    }
    tab.until("window.release").await;
    assert_eq!(tab.value("window.puts"), 1);
    tab.value("window.release()");
    tab.until_shown("#entry .said", "Saved").await;
    assert_eq!(tab.value("window.puts"), 1);
    assert!(!tab.holds("document.querySelector('dialog')"));
    tab.assert_no_errors();
}

/// Somebody gave the entry a time while it was edited; replacing it took the time away, and nothing said so.
#[tokio::test(flavor = "multi_thread")]
async fn replacing_what_somebody_changed_dropped_its_time() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("k", "0").await;
    let tab = desk.tab_of_key("k", "").await;
    begin_to_edit(&tab, "mine").await;
    assert_eq!(node.ask("POST", "/kv/k?ttl=1h").await.status, 204);
    tab.click("#entry .editor [type=submit]").await;
    tab.until_shown("dialog .sides > :first-child", "in 59 m")
        .await;
    tab.until_shown("dialog .sides > :last-child", "in 59 m")
        .await;
    tab.click_text("dialog[open] button", "Replace it with yours")
        .await;
    tab.until_shown("#entry .said", "Saved").await;
    let answer = node.ask("GET", "/kv/k").await;
    assert_eq!(answer.body, "mine");
    let ttl = answer.header("kv-ttl-ms").expect("it still has a time");
    assert!(ttl.parse::<u64>().is_ok_and(|ms| ms > 3_000_000), "{ttl}");

    // Whoever chooses to drop it is shown what he does, and may.
    begin_to_edit(&tab, "for good").await;
    choose_expiry(&tab, "never").await;
    node.ask("POST", "/kv/k?ttl=2h").await;
    tab.click("#entry .editor [type=submit]").await;
    tab.until_shown("dialog .sides > :first-child", "never")
        .await;
    tab.click_text("dialog[open] button", "Replace it with yours")
        .await;
    tab.until_shown("#entry .value", "for good").await;
    assert_eq!(node.ask("GET", "/kv/k").await.header("kv-ttl-ms"), None);
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_of_unknown_outcome_was_told_in_green() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    desk.node().put("k", "0").await;
    let tab = desk.tab_of_key("k", BROKEN).await;
    tab.value("window.broken = 'DELETE'");
    tab.click_text("#entry .actions button", "Delete").await;
    tab.click_text("dialog[open] button", "Delete").await;
    tab.until_shown("#entry .said", "Whether it was deleted is not known")
        .await;
    assert!(!tab.holds("document.querySelector('#entry .said.good')"));
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_could_not_be_shown_was_silent() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("k", "0").await;
    let tab = desk.tab_of_key("k", BROKEN).await;
    begin_to_edit(&tab, "mine").await;
    node.put("k", "theirs").await;
    tab.value("window.broken = 'GET'");
    tab.click("#entry .editor [type=submit]").await;
    tab.until_shown("#entry .editor .said", "Somebody changed this key")
        .await;
    assert_eq!(typed(&tab), "mine");
    tab.value("window.broken = ''");
    tab.click("#entry .editor [type=submit]").await;
    tab.until_shown("dialog", "theirs").await;
    assert_eq!(node.get("k").await.as_deref(), Some(&b"theirs"[..]));
    tab.assert_no_errors();
}

/// A time that was chosen is a change as much as a text that was typed.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_lost_a_chosen_time() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    desk.node().put("k", "0").await;
    let tab = desk.tab_of_key("k", "").await;
    tab.click_text("#entry .actions button", "Edit").await;
    choose_expiry(&tab, "after").await;
    tab.fill("#entry .short", "90s").await;
    tab.press("Escape", 0);
    tab.until_shown("#entry .editor .said", "There are changes")
        .await;
    tab.fill("#search-text", "other").await;
    tab.click("#search-open").await;
    tab.until_shown("dialog", "Leave without saving").await;
    tab.click_text("dialog[open] button", "Cancel").await;
    assert_eq!(
        tab.value("document.querySelector('#entry .short').value"),
        "90s"
    );
    tab.assert_no_errors();
}

/// Cancel ends the editing, not the save that is on its way: what became of it is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_was_left_is_told_when_it_is_done() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    desk.node().put("k", "0").await;
    let tab = desk.tab_of_key("k", HELD).await;
    begin_to_edit(&tab, "one").await;
    tab.click("#entry .editor [type=submit]").await;
    tab.until("window.release").await;
    tab.click_text("#entry .editor button", "Cancel").await;
    tab.until("document.querySelector('#entry .actions')").await;
    tab.value("window.release()");
    tab.until_shown("#entry .said.good", "Saved").await;
    tab.until_shown("#entry .value", "one").await;
    tab.assert_no_errors();
}
