//! The feed against streams that a test writes: silent ones, floods, and refusals of every kind.

use serde_json::json;

use super::desk::Desk;

/// Answers `/watch` in the node's stead with what `streams` gives one after the other: a list of pieces, or a status and
/// a code. A stream stays open at its end. What was asked is in `asked`.
fn streams(streams: &str) -> String {
    format!(
        "const real = window.fetch; window.asked = []; const streams = {streams}; \
         const open = (pieces, signal) => new Response(new ReadableStream({{ start(to) {{ \
             pieces.forEach(piece => to.enqueue(new TextEncoder().encode(piece))); \
             signal.addEventListener('abort', () => to.error(signal.reason)); }} }})); \
         const refusal = ([status, error]) => Response.json({{ error, message: error }}, {{ status }}); \
         window.fetch = async (path, options) => {{ \
             if (!String(path).startsWith('/watch')) return real(path, options); \
             const next = streams[window.asked.length] ?? []; \
             window.asked.push(options.headers['last-event-id'] ?? null); \
             return typeof next[0] === 'number' ? refusal(next) : open(next, options.signal); }};"
    )
}

const ONE: &str =
    "'event: put\\nid: 1.9000\\ndata: {\"key\":\"calm\",\"value\":\"1\",\"time_ms\":1}\\n\\n'";

/// Nodes tell their position every 5 s. A stream on which nothing came looked like a shard in which nothing happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_was_taken_for_a_calm_shard() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    // Patience ends early here.
    let hasty = "const later = window.setTimeout; \
        window.setTimeout = (work, ms, ...more) => later(work, ms === 12000 ? 300 : ms, ...more);";
    let silent = streams(&format!(
        "[['id: 1.7\\nevent: position\\ndata: {{}}\\n\\n'], [{ONE}]]"
    ));
    let tab = desk.tab_after(&format!("{hasty}{silent}")).await;
    tab.until_shown("#feed", "calm").await;
    assert_eq!(tab.value("window.asked.slice(0, 2)"), json!([null, "1.7"]));
    tab.assert_no_errors();
}

/// What came behind the change that was one too many was taken all the same, so it went on from there and not from now.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_was_resumed_after_a_flood_paused_again() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let flood = "Array.from({ length: 5000 }, (_, at) => \
        `event: put\\nid: 1.${at + 1}\\ndata: {\"key\":\"k\",\"value\":\"1\",\"time_ms\":1}\\n\\n`).join('')";
    let tab = desk
        .tab_after(&streams(&format!("[[{flood}], [{ONE}]]")))
        .await;
    tab.until_shown("#feed-state", "Paused: more than 2,000")
        .await;
    tab.click("#feed-pause").await;
    tab.until_shown("#feed", "calm").await;
    assert_eq!(tab.value("window.asked"), json!([null, null]));
    tab.until_shown("#feed-state", "Watching").await;
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_410_was_called_a_log_too_short() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    for (code, told) in [
        ("log_truncated", "no longer in the log"),
        ("position_lost", "another history"),
    ] {
        let one =
            "'event: put\\nid: 1.5\\ndata: {\"key\":\"k\",\"value\":\"1\",\"time_ms\":1}\\n\\n'";
        let broken = format!("[[410, '{code}'], [{one}]]");
        let tab = desk.tab_after(&streams(&broken)).await;
        tab.until_shown("#feed .gap", told).await;
        tab.until_shown("#feed", "1.5").await;
        tab.assert_no_errors();
    }
}
