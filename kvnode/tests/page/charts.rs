//! The charts: drawn from what the node remembers, and done without where it remembers nothing.

use super::desk::Desk;

/// Answers `/status/history` in the node's stead, by what `history` gives.
fn answered_by(history: &str) -> String {
    format!(
        "const real = window.fetch; window.fetch = (path, options) => \
            String(path).startsWith('/status/history') ? Promise.resolve(({history})(path)) : real(path, options);"
    )
}

const SAMPLES: &str = "path => {
    const after = Number(/after=(\\d+)/.exec(path)?.[1] ?? 0);
    const now = Math.floor(Date.now() / 1000) * 1000;
    const samples = Array.from({ length: 600 }, (_, at) => ({
        at_ms: now - (599 - at) * 1000, reads: 1234, writes: 56, failed: 0, read_p50_us: 12.5, read_p99_us: 99,
        write_p50_us: 250, write_p99_us: 2500, lag_ms: null, log_bytes: 5 << 20, lmdb_bytes: 1 << 20,
        memory_bytes: 64 << 20, watches: 1,
    }));
    return Response.json({ every_ms: 1000, samples: samples.filter(sample => sample.at_ms > after) });
}";

#[tokio::test(flavor = "multi_thread")]
async fn charts_are_drawn_with_their_figures_as_text() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let tab = desk.tab_after(&answered_by(SAMPLES)).await;
    tab.until("document.querySelectorAll('.chart canvas').length === 6")
        .await;
    for text in [
        "reads 1,234",
        "writes 56",
        "p50 13 µs",
        "p99 2.5 ms",
        "lag –",
        "log 5.0 MiB",
        "resident 64 MiB",
    ] {
        tab.until_shown(".chart .line", text).await;
    }
    let drawn = "[...document.querySelectorAll('.chart canvas')].every(canvas => \
        canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(part => part))";
    tab.until(drawn).await;
    assert!(tab.holds("document.querySelector('#charts-note').hidden"));
    tab.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_the_rest_goes_on() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let node = desk.node();
    let none = answered_by("() => new Response('{}', { status: 404 })");
    let tab = desk.tab_after(&none).await;
    tab.until_shown("#charts-note", "Charts are not available")
        .await;
    assert!(!tab.holds("document.querySelector('.chart')"));
    node.put("a", "1").await;
    tab.until_shown("#feed", "a").await;
    tab.assert_no_errors();
}

/// All that came was older than the last sample, so the charts stood still until the clock was where it had been.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_clock_was_set_back_the_charts_stood_still() {
    let Some(desk) = Desk::set_up().await else {
        return;
    };
    let set_back = "path => {
        const after = Number(/after=(\\d+)/.exec(path)?.[1] ?? 0);
        window.asked = (window.asked ?? 0) + 1;
        const back = window.asked > 1 ? 3_600_000 : 0;
        const samples = [2, 1, 0].map(at => ({ at_ms: Date.now() - back - at * 1000, reads: back ? 77 : 11 }));
        return Response.json({ every_ms: 1000, samples: samples.filter(sample => sample.at_ms > after) });
    }";
    let tab = desk.tab_after(&answered_by(set_back)).await;
    tab.until_shown(".chart .line", "reads 11").await;
    tab.until_shown(".chart .line", "reads 77").await;
    tab.assert_no_errors();
}
