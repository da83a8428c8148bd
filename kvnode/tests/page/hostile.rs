//! Keys and values that would like to be more than text: none runs, none hides, none disturbs the page.

use kvclient::key::escape;

use super::{
    desk::Desk,
    tab::{Look, Tab, page, page_of_key},
};
use crate::support::http::Ask;

/// A script that tells on itself, in the forms in which it could get into a page.
const MARKUP: &str =
    "<img src=x onerror=\"window.ran=1\"><script>window.ran=1</script><svg onload=window.ran=1>";

fn hostile() -> Vec<Vec<u8>> {
    vec![
        MARKUP.into(),
        b"javascript:window.ran=1//".to_vec(),
        "safe\u{202e}gnp.exe".into(),
        "zero\u{200b}width\u{feff}\u{2066}".into(),
        b"nul\0esc\x1b[31m\r\n\tend".to_vec(),
        b"bad\xff\xc3(\xed\xa0\x80utf8".to_vec(),
        "\u{5d0}\u{5d1}\u{5d2} zalgo\u{301}\u{301}\u{301}\u{301}".into(),
        vec![b'w'; 511],
        vec![0xff; 511],
        b"..".to_vec(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_keys_and_values_are_text_and_run_nothing() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let tab = desk.empty_tab("");
    tab.look(Look::Phone);
    tab.open(&page(&node.address)).await;
    tab.until_shown("#feed-state", "Watching").await;
    for key in hostile() {
        let put = Ask::new("PUT", format!("/kv?key={}", escape(&key))).body(key);
        assert_eq!(node.send(put).await.status, 204);
    }
    tab.until(&format!(
        "document.querySelectorAll('#feed li').length === {}",
        hostile().len()
    ))
    .await;
    tab.click("#search [type=submit]").await;
    tab.until_shown("#found", &format!("{} keys", hostile().len()))
        .await;
    for key in hostile() {
        tab.open(&page_of_key(&node.address, &escape(&key))).await;
        let shown = format!("{} byte", key.len());
        tab.until_shown("#entry .facts", &shown).await;
        for view in ["Hex", "Text"] {
            tab.click_text("#entry .segments button", view).await;
            assert_harmless(&tab);
        }
        tab.click_text("#entry .actions button", "Edit").await;
        tab.until("document.querySelector('#edit-value')").await;
        assert_harmless(&tab);
        tab.click_text("#entry .editor button", "Cancel").await;
    }
    for text in [
        "<img src=x onerror=",
        "safe\\u{202e}gnp.exe",
        "nul\\0esc\\u{1b}[31m\\r\\n\\tend",
        "bad\\xff\\xc3(\\xed\\xa0\\x80utf8",
    ] {
        tab.until_shown("#key-list", text).await;
    }
    tab.assert_no_errors();
}

/// Nothing of it ran, became markup, hides among the text or makes the page wider.
fn assert_harmless(tab: &Tab<'_>) {
    assert!(tab.holds("window.ran === undefined"), "a script ran");
    let parts = "#key-list, #entry, #feed";
    let markup = format!(
        "[...document.querySelectorAll('{parts}')].some(part => part.querySelector('img, script, svg'))"
    );
    assert!(!tab.holds(&markup), "markup of a key is in the page");
    let hidden = r"/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/.test(document.querySelector('main').innerText)";
    assert!(!tab.holds(hidden), "something in the text is not seen");
    assert!(tab.holds("document.documentElement.scrollWidth <= innerWidth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_text_field_would_change_is_edited_as_hex_and_stays_the_same() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let tab = desk.empty_tab("");
    for (key, value, is_hex) in [
        ("crlf", &b"a\r\nb\r"[..], true),
        ("bidi", "a\u{202e}b".as_bytes(), true),
        ("bom", "\u{feff}a".as_bytes(), true),
        ("plain", "\n a\tb \u{1f600} \u{e9}\n".as_bytes(), false),
        ("empty", b"", false),
    ] {
        node.put(key, value.to_vec()).await;
        tab.open(&page_of_key(&node.address, key)).await;
        tab.until_shown("#entry h3", key).await;
        tab.click_text("#entry .actions button", "Edit").await;
        assert_eq!(
            tab.value("document.querySelector('.editor .check input').checked"),
            is_hex,
            "{key}"
        );
        tab.click("#entry .editor [type=submit]").await;
        tab.until_shown("#entry .said", "Saved").await;
        assert_eq!(node.get(key).await.expect("it is there"), value, "{key}");
    }
    tab.assert_no_errors();
}

/// A few kilobytes of brackets became many megabytes of blanks, and the page stood still or showed nothing of the entry.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_deep_is_shown_as_it_is() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    node.put("deep", deep).await;
    node.put("flat", "[[1,2],{}]").await;
    let tab = desk.tab_of_key("flat", "").await;
    tab.until_shown("#entry h3", "flat").await;
    tab.open(&page_of_key(&node.address, "deep")).await;
    tab.until_shown("#entry h3", "deep").await;
    tab.until("document.querySelector('#entry').textContent.includes('[[[[[[[[')")
        .await;
    let most = tab.value("document.querySelector('#entry').textContent.length");
    assert!(most.as_u64() < Some(100_000), "{most}");
    tab.click_text("#entry .actions button", "Edit").await;
    tab.until("document.querySelector('#edit-value')").await;
}
