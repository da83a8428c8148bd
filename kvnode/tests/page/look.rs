//! The page as a whole: it opens without a complaint, on a desk and on a phone, by day and by night.

use super::{
    browser::Browser,
    desk::Desk,
    tab::{Look, Tab, page, page_of_key},
};
use crate::support::{
    cluster::{Cluster, Shape},
    http::Ask,
};

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_without_errors_at_every_width() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let cluster = Cluster::start(Shape::pair()).await;
    let node = cluster.primary(0);
    let long = "k".repeat(511);
    node.put(&long, "v".repeat(20_000)).await;
    let tab = Tab::new(&browser, "");
    let mut grounds = Vec::new();
    for look in [
        Look::Desktop,
        Look::DesktopAtNight,
        Look::Phone,
        Look::PhoneAtNight,
    ] {
        tab.look(look);
        tab.open(&page(&node.address)).await;
        tab.open(&page_of_key(&node.address, &long)).await;
        tab.until_shown("#entry .value", "vvvv").await;
        tab.until_shown("#key-list", "kkkk").await;
        assert_eq!(
            tab.value("document.querySelectorAll('#nodes .node').length"),
            2
        );
        let (width, window) = (
            tab.value("document.documentElement.scrollWidth"),
            tab.value("innerWidth"),
        );
        assert!(
            width.as_u64() <= window.as_u64(),
            "{look:?}: {width} of {window}"
        );
        grounds.push(tab.value("getComputedStyle(document.body).backgroundColor"));
    }
    assert_eq!((&grounds[0], &grounds[1]), (&grounds[2], &grounds[3]));
    assert_ne!(grounds[0], grounds[1], "night looks like day");
    let errors = tab.errors(|_| true);
    assert_eq!(errors, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_may_do_little_and_other_methods_nothing() {
    let cluster = Cluster::start(Shape::default()).await;
    let node = cluster.primary(0);
    for (uri, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/colours.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let answer = node.ask("GET", uri).await;
        assert_eq!(answer.status, 200, "{uri}");
        assert!(!answer.body.is_empty(), "{uri}");
        for (name, value) in [
            ("content-type", kind),
            ("cache-control", "no-cache"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                 connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
        ] {
            assert_eq!(answer.header(name), Some(value), "{uri} {name}");
        }
        let etag = answer.header("etag").expect("a tag");
        let known = Ask::new("GET", uri).header("if-none-match", etag);
        let known = node.send(known).await;
        assert_eq!((known.status, known.body.len()), (304, 0), "{uri}");
        assert_eq!(known.header("etag"), Some(etag), "{uri}");
        let other = Ask::new("GET", uri).header("if-none-match", "\"0\"");
        assert_eq!(node.send(other).await.status, 200, "{uri}");
        let head = node.ask("HEAD", uri).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{uri}");
        let put = node.ask("PUT", uri).await;
        assert_eq!(
            (put.status, put.header("allow")),
            (405, Some("GET, HEAD")),
            "{uri}"
        );
        let strange = node
            .send(Ask::new("GET", uri).header("host", "evil.example"))
            .await;
        assert_eq!(strange.status, 421, "{uri}");
    }
    for uri in [
        "/page",
        "/page/",
        "/page/nothing.js",
        "/page/../page.rs",
        "/index.html",
    ] {
        assert_eq!(node.ask("GET", uri).await.status, 404, "{uri}");
    }
}

/// A load was 110 KB each time, though nothing had changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_was_fetched_whole_on_each_load() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let tab = desk.tab().await;
    tab.open(&page(&desk.node().address)).await;
    let files =
        "performance.getEntriesByType('resource').filter(file => file.name.includes('/page/'))";
    assert!(tab.holds(&format!("{files}.length > 20")));
    // Of what was known, only a head is sent.
    let whole = format!("{files}.filter(file => file.transferSize >= 1000).map(file => file.name)");
    assert_eq!(tab.value(&whole), serde_json::json!([]));
}
