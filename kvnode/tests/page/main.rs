//! The page at `/`, in a real browser, against real nodes on this machine.
//!
//! A file per part of the page. Chromium is driven over a pipe (`browser.rs`); without it these tests say that they
//! were skipped, and pass. Nothing is waited for by time: a check is asked again until it holds or patience ends.

mod browser;
mod charts;
mod cluster;
mod desk;
mod edit;
mod feed;
mod hostile;
mod keyboard;
mod keys;
mod late;
mod look;
mod pictures;
mod streams;
#[allow(
    dead_code,
    reason = "shared with the cluster tests, which use the rest"
)]
#[path = "../cluster/support/mod.rs"]
mod support;
mod tab;
mod token;
