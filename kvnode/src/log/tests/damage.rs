//! What no crash can explain is refused, and `check` finds it all.

use super::*;
use crate::log::check;

#[test]
fn every_damaged_byte_in_the_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 6, 20);
    let file = closed(dir.path(), &frames);
    let at = place_after(&frames[..2]);
    for byte in 0..frames[2].bytes.len() as u64 {
        flip(&file, at + byte);
        let why = refusal(dir.path(), Position::ZERO, Position::ZERO);
        let place = format!("0000000000000001.seg, byte {at}, seq 3");
        assert!(
            why.contains(&place) && why.contains("later frames"),
            "{byte}: {why}"
        );
        flip(&file, at + byte);
    }
    assert_eq!(
        reopen(dir.path()).replayed,
        frames,
        "nothing was changed meanwhile"
    );
}

#[test]
fn a_lost_page_in_the_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 12, 900);
    let file = closed(dir.path(), &frames);
    patch(&file, 8192, &[0; 4096]);
    let why = refusal(dir.path(), Position::ZERO, Position::ZERO);
    assert!(why.contains("later frames are there"), "{why}");
}

#[test]
fn damage_before_another_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 6, 3_000);
    let file = closed(dir.path(), &frames);
    // The last frame of the first segment: nothing is behind it but the next segment.
    let at = place_after(&frames[..3]);
    flip(&file, at + 50);
    let why = refusal(dir.path(), Position::ZERO, Position::ZERO);
    assert!(why.contains(&format!("byte {at}, seq 4")), "{why}");
    assert!(why.contains("follows seq 4"), "{why}");
}

#[test]
fn a_log_below_the_floor_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &chain(Link::default(), 4, 20));
    let why = refusal(dir.path(), Position::new(1, 2), Position::new(1, 5));
    assert!(
        why.contains("ends at 1.4") && why.contains("durable up to 1.5"),
        "{why}"
    );
}

#[test]
fn a_log_of_another_epoch_than_lmdb_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &chain(Link::default(), 4, 20));
    for (applied, floor) in [
        (Position::new(2, 2), Position::new(2, 2)),
        (Position::new(1, 2), Position::new(2, 4)),
    ] {
        let why = refusal(dir.path(), applied, floor);
        assert!(why.contains("epoch"), "{why}");
    }
}

#[test]
fn missing_segments_are_refused() {
    let frames = chain(Link::default(), 14, 3_000);
    for (missing, expected) in [
        (1, "segments before it are missing"),
        (2, "segment 2 is missing"),
        (4, "durable up to 1.14"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        closed(dir.path(), &frames);
        std::fs::remove_file(segment(dir.path(), missing)).unwrap();
        let why = refusal(dir.path(), Position::ZERO, Position::new(1, 14));
        assert!(why.contains(expected), "{missing}: {why}");
    }
    let empty = tempfile::tempdir().unwrap();
    let why = refusal(empty.path(), Position::ZERO, Position::ZERO);
    assert!(why.contains("no log segment"), "{why}");
}

#[test]
fn foreign_segments_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = closed(dir.path(), &chain(Link::default(), 2, 20));
    let start = StartFrom {
        applied: Position::ZERO,
        floor: Position::ZERO,
    };
    let Err(LogError::Refused(why)) = Log::open(dir.path(), 7, start, options(), &mut |_| Ok(()))
    else {
        panic!("a foreign history was opened");
    };
    assert!(
        why.contains("history 00000000000000000000000000000abc"),
        "{why}"
    );
    std::fs::rename(&file, segment(dir.path(), 5)).unwrap();
    let why = refusal(dir.path(), Position::ZERO, Position::ZERO);
    assert!(why.contains("segment 1, renamed"), "{why}");
    patch(&segment(dir.path(), 5), 0, b"?");
    let why = refusal(dir.path(), Position::ZERO, Position::ZERO);
    assert!(why.contains("not a log segment"), "{why}");
}

#[test]
fn check_lists_everything_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 14, 3_000);
    closed(dir.path(), &frames);
    let good = check(dir.path(), HISTORY).unwrap();
    assert_eq!((good.segments, good.frames, good.records), (4, 14, 14));
    assert_eq!((good.truncated, good.end), (0, frames[13].header.link()));
    assert_eq!((good.torn, good.problems), (None, vec![]));

    flip(&segment(dir.path(), 1), place_after(&frames[..1]) + 50);
    flip(&segment(dir.path(), 3), place_after(&frames[8..10]) + 1);
    flip(&segment(dir.path(), 4), place_after(&frames[12..13]) + 60);
    let before = std::fs::read(segment(dir.path(), 4)).unwrap();
    let report = check(dir.path(), HISTORY).unwrap();
    let found: Vec<_> = report.problems.iter().map(|p| p.seq).collect();
    assert_eq!(found, [Some(2), Some(11)]);
    let text = report.problems[0].to_string();
    assert!(
        text.contains("0000000000000001.seg, byte 7") && text.contains("seq 2"),
        "{text}"
    );
    assert_eq!(
        report.torn.map(|torn| torn.after),
        Some(Position::new(1, 13))
    );
    assert_eq!(std::fs::read(segment(dir.path(), 4)).unwrap(), before);

    std::fs::remove_file(segment(dir.path(), 2)).unwrap();
    let report = check(dir.path(), 7).unwrap();
    assert_eq!(
        report.problems.len(),
        5,
        "3 foreign, 1 missing, none left: {report:?}"
    );
}
