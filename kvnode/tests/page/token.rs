//! A node that wants a token: asked for once, kept for the tab, sent with everything.

use super::{
    browser::Browser,
    desk::Desk,
    tab::{Tab, page},
};
use crate::support::{
    cluster::Shape,
    http::Ask,
    tokens::{self, Entry},
};

/// Refuses in the node's stead whatever does not carry the right token.
const GUARD: &str = "const real = window.fetch; window.fetch = (path, options) => \
    options.headers?.authorization === 'Bearer right' ? real(path, options) : Promise.resolve(new Response( \
        JSON.stringify({ error: 'unauthorized', message: 'a token is needed' }), { status: 401 }));";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_and_goes_with_every_request() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    node.put("a", "1").await;
    let tab = desk.empty_tab(GUARD);
    tab.visit(&page(&node.address));
    for (token, said) in [("wrong", "wants a token"), ("right", "refused this token")] {
        tab.until_shown("dialog", said).await;
        assert_eq!(tab.value("document.querySelectorAll('dialog').length"), 1);
        tab.fill("#token", token).await;
        tab.press("Enter", 0);
    }
    tab.until_shown("#nodes .pill", "ready").await;
    tab.until_shown("#key-list", "a").await;
    tab.until_shown("#feed-state", "Watching").await;
    assert!(!tab.holds("document.querySelector('dialog')"));
    assert_eq!(tab.value("sessionStorage.length"), 1);
    assert_eq!(tab.value("localStorage.length"), 0);
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_no_token_is_not_asked_again_until_he_wants_to() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let tab = desk.empty_tab(GUARD);
    tab.visit(&page(&desk.node().address));
    tab.until("document.querySelector('dialog[open]')").await;
    tab.press("Escape", 0);
    tab.until_shown("#feed-state", "a token is needed").await;
    assert!(!tab.holds("document.querySelector('dialog')"));
    tab.click("#token-open").await;
    tab.fill("#token", "right").await;
    tab.press("Enter", 0);
    tab.until_shown("#nodes .pill", "ready").await;
    tab.assert_no_errors();
}

/// A real node, and what a person may do with a token that only reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_asks_is_shown_what_a_person_typed() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let entries = [
        Entry::new("app", &["read", "write"]),
        Entry::new("reader", &["read"]),
    ];
    let (cluster, _doors) = tokens::start(Shape::default(), &entries).await;
    let node = cluster.primary(0);
    let put = Ask::new("PUT", "/kv/a").body("1");
    assert_eq!(tokens::status(node, "app", put).await, 204);
    let tab = Tab::new(&browser, "");
    tab.visit(&page(&node.address));
    for (token, said) in [
        ("nobody", "wants a token"),
        ("reader", "refused this token"),
    ] {
        tab.until_shown("dialog", said).await;
        tab.fill("#token", &tokens::text_of(token)).await;
        tab.press("Enter", 0);
    }
    tab.until_shown("#nodes .pill", "ready").await;
    tab.until_shown("#key-list", "a").await;
    tab.until_shown("#feed-state", "Watching").await;
    assert_eq!(tab.value("localStorage.length"), 0);
    // The node says which scope is missing, and the page shows it.
    let said = tab.value(
        "import('/page/ask.js').then(({ ask }) => ask('/kv/a', { method: 'PUT', body: '2' }))\
         .then(() => 'done', (error) => `${error.status} ${error.message}`)",
    );
    let said = said.as_str().expect("text");
    assert!(
        said.starts_with("403 ") && said.contains("scope write"),
        "{said}"
    );
}
