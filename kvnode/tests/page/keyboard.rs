//! Everything without a mouse: the focus goes where one looks, and can be seen.

use super::{desk::Desk, tab::Tab};

/// Presses Tab until such an element has the focus, which is seen at every step.
fn tab_to(tab: &Tab<'_>, selector: &str) {
    for _ in 0..80 {
        tab.press("Tab", 0);
        let seen = "document.activeElement === document.body || \
            getComputedStyle(document.activeElement).outlineStyle !== 'none'";
        assert!(
            tab.holds(seen),
            "{}",
            tab.value("document.activeElement.outerHTML")
        );
        if tab.holds(&format!("document.activeElement.matches('{selector}')")) {
            return;
        }
    }
    panic!("Tab does not lead to {selector}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_alone_is_enough() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("a", "1").await;
    node.put("b", "2").await;
    let tab = desk.tab().await;
    tab.until_shown("#key-list", "b").await;
    tab_to(&tab, ".skip");
    tab.press("Enter", 0);
    tab_to(&tab, "#search-text");
    tab.type_in("a");
    tab.press("Enter", 0);
    tab.until_shown("#found", "1 key.").await;
    tab.fill("#search-text", "").await;
    tab.press("Enter", 0);
    tab.until_shown("#found", "2 keys.").await;
    tab_to(&tab, ".key");
    tab.press("ArrowDown", 0);
    tab.press("Enter", 0);
    tab.until_shown("#entry .value", "2").await;
    tab.until("document.activeElement.id === 'entry'").await;
    tab_to(&tab, "#entry .actions .primary");
    tab.press("Enter", 0);
    tab.until("document.activeElement.id === 'edit-value'")
        .await;
    // Escape loses nothing that was typed.
    tab.type_in("typed ");
    tab.press("Escape", 0);
    tab.until_shown("#entry .editor .said", "There are changes")
        .await;
    tab.press("Enter", 2);
    tab.until_shown("#entry .said", "Saved").await;
    let value = node.get("b").await.expect("it is there");
    assert!(
        value.starts_with(b"typed ") || value.ends_with(b"typed "),
        "{value:?}"
    );
    tab.until("document.activeElement.id === 'entry'").await;
    tab_to(&tab, "#entry .actions .danger");
    tab.press("Enter", 0);
    tab.until("document.querySelector('dialog[open]')").await;
    tab.press("Escape", 0);
    tab.until("document.activeElement.matches('#entry .actions .danger')")
        .await;
    assert!(node.get("b").await.is_some(), "Escape does not delete");
    tab.press("Enter", 0);
    tab_to(&tab, "dialog[open] .danger");
    tab.press("Enter", 0);
    tab.until_shown("#entry .said", "Deleted").await;
    assert_eq!(node.get("b").await, None);
    tab.assert_no_errors();
}

/// What a screen reader goes by: everything that can be used has a name, everything that changes says so.
#[tokio::test(flavor = "multi_thread")]
async fn everything_has_a_name() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("a", "1").await;
    let tab = desk.tab().await;
    tab.click_text("#key-list button", "a").await;
    tab.click_text("#entry .actions button", "Edit").await;
    tab.until("document.querySelector('#edit-value')").await;
    let nameless = tab.value(
        "[...document.querySelectorAll('button, input, select, textarea, a')].filter(node => \
            !node.textContent.trim() && !node.ariaLabel && !node.labels?.length).map(node => node.outerHTML)",
    );
    assert_eq!(nameless, serde_json::json!([]));
    let regions = "[...document.querySelectorAll('section')].every(part => \
        document.getElementById(part.getAttribute('aria-labelledby')))";
    assert!(tab.holds(regions));
    for live in [
        "#lost[role=alert]",
        "#warnings[role=status]",
        "#found[role=status]",
        "#feed[role=log]",
        "#feed-state[role=status]",
    ] {
        assert!(
            tab.holds(&format!("document.querySelector('{live}')")),
            "{live}"
        );
    }
    assert_eq!(tab.value("document.documentElement.lang"), "en");
    tab.assert_no_errors();
}
