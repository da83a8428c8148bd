//! Appending, going on to the next segment, and letting go of old ones.

use super::*;

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 20, 10);
    {
        let (log, mut writer) = create(dir.path());
        assert_eq!(log.durable(), Position::ZERO);
        append_each(&mut writer, &frames);
        assert_eq!(log.durable(), end_of(&frames));
        assert_eq!(writer.end(), log.end());
    }
    let opened = reopen(dir.path());
    assert_eq!(opened.replayed, frames);
    assert_eq!(read_all(&opened.log, 0, 1 << 20), frames);
    let end = frames[19].header;
    assert_eq!(
        opened.recovered,
        Recovered {
            end: end.link(),
            end_time_ms: end.time_ms,
            cut: None
        }
    );
}

#[test]
fn replay_begins_in_the_frame_that_holds_the_next_seq() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut writer) = create(dir.path());
    let first = frame(&Link::default(), 1, 3, 5);
    let second = frame(&first.header.link(), 2, 4, 5);
    append_each(&mut writer, &[first.clone(), second.clone()]);
    drop(writer);
    for (applied, expected) in [
        (Position::ZERO, vec![first.clone(), second.clone()]),
        (Position::new(1, 2), vec![first.clone(), second.clone()]),
        (Position::new(1, 3), vec![second.clone()]),
        (Position::new(2, 6), vec![second.clone()]),
        (Position::new(2, 7), vec![]),
    ] {
        let opened = open(dir.path(), applied, applied).unwrap();
        assert_eq!(opened.replayed, expected, "applied {applied}");
        assert_eq!(opened.recovered.end_time_ms, second.header.time_ms);
    }
}

#[test]
fn goes_on_to_the_next_segment() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 20, 3_000);
    {
        let (log, mut writer) = create(dir.path());
        append_each(&mut writer, &frames);
        // 12 KiB of frames a segment: four of about 3 KiB each.
        assert_eq!(log.stats().segments, 5);
    }
    let mut opened = reopen(dir.path());
    assert_eq!(opened.replayed, frames);
    assert_eq!(read_all(&opened.log, 0, 1 << 20), frames);
    let more = chain(opened.writer.end(), 1, 3_000);
    append_each(&mut opened.writer, &more);
    assert_eq!(opened.log.stats().segments, 6);
    assert_eq!(opened.log.durable(), end_of(&more));
}

#[test]
fn many_frames_at_once_may_need_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 30, 3_000);
    let (log, mut writer) = create(dir.path());
    append_each(&mut writer, &frames[..2]);
    writer.append_synced(&frames[2..]).unwrap();
    assert_eq!(read_all(&log, 0, 1 << 20), frames);
    drop((log, writer));
    assert_eq!(reopen(dir.path()).replayed, frames);
}

#[test]
fn a_log_can_begin_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let base = Link {
        position: Position::new(4, 1_000),
        crc: 77,
    };
    let frames = vec![frame(&base, 5, 2, 9)];
    let (log, mut writer) = Log::create(dir.path(), HISTORY, base, options()).unwrap();
    assert_eq!((log.end(), log.truncated()), (base, 1_000));
    append_each(&mut writer, &frames);
    assert_eq!(log.link_at(1_000).unwrap(), Some(base));
    drop((log, writer));
    let opened = open(dir.path(), base.position, base.position).unwrap();
    assert_eq!(opened.replayed, frames);
}

#[test]
fn a_log_is_not_made_over_another() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    let again = Log::create(dir.path(), HISTORY, Link::default(), options());
    assert!(matches!(again, Err(LogError::Refused(_))), "{again:?}");
}

#[test]
fn what_does_not_follow_is_not_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let frames = chain(Link::default(), 3, 1);
    let too_large = frame(&Link::default(), 1, 1, 9_000);
    for wrong in [
        &frames[1..],
        &[frames[0].clone(), frames[2].clone()],
        &[too_large],
    ] {
        let refused = writer.append_synced(wrong);
        assert!(matches!(refused, Err(LogError::Refused(_))), "{refused:?}");
    }
    assert_eq!(log.durable(), Position::ZERO);
    writer.append_synced(&frames).unwrap();
    assert_eq!(read_all(&log, 0, 1 << 20), frames);
}

#[test]
fn a_frame_must_fit_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let unfit = LogOptions {
        max_frame_bytes: 13 << 10,
        ..options()
    };
    let made = Log::create(dir.path(), HISTORY, Link::default(), unfit);
    assert!(matches!(made, Err(LogError::Refused(_))), "{made:?}");
}

#[test]
fn after_a_failed_write_nothing_more_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let frames = chain(Link::default(), 2, 1);
    append_each(&mut writer, &frames[..1]);
    writer.break_disk();
    for _ in 0..2 {
        let failed = writer.append_synced(&frames[1..]);
        assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
        assert_eq!(log.durable(), Position::new(1, 1));
    }
}

/// Part of an append is synced when the rest fails: nobody is told of it, and nothing may follow.
#[test]
fn an_append_that_fails_half_way_is_not_seen() {
    for blocked in [2_u8, 3] {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut writer) = create(dir.path());
        let frames = chain(Link::default(), 12, 3_000);
        append_each(&mut writer, &frames[..2]);
        // A directory with a file in it cannot be renamed over.
        std::fs::create_dir_all(segment(dir.path(), blocked.into()).join("x")).unwrap();
        let failed = writer.append_synced(&frames[2..]);
        assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
        assert_eq!(log.durable(), Position::new(1, 2));
        assert_eq!(read_all(&log, 0, 1 << 20), frames[..2]);
        let small = chain(writer.end(), 1, 1);
        let failed = writer.append_synced(&small);
        assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
        drop((log, writer));
        std::fs::remove_dir_all(segment(dir.path(), blocked.into())).unwrap();
        let replayed = reopen(dir.path()).replayed;
        assert_eq!(
            replayed,
            frames[..4 * (usize::from(blocked) - 1)],
            "what was synced"
        );
    }
}

#[test]
fn spares_that_are_not_enough_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    while log.stats().spares == 0 {
        std::thread::yield_now();
    }
    log.shared.spares.set_disk_full(true);
    let refused = writer.append_synced(&chain(Link::default(), 40, 3_000));
    assert!(matches!(refused, Err(LogError::NoSpace(_))), "{refused:?}");
    assert_eq!(log.stats().spares, 1);
}

#[test]
fn a_full_disk_loses_nothing_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    log.shared.spares.set_disk_full(true);
    let frames = chain(Link::default(), 40, 3_000);
    // The segment and at most two spares were there before the disk was full.
    let appended = frames
        .iter()
        .take_while(|frame| writer.append_synced(std::slice::from_ref(*frame)).is_ok())
        .count();
    assert!((4..=12).contains(&appended), "{appended}");
    let refused = writer.append_synced(&frames[appended..]);
    assert!(matches!(refused, Err(LogError::NoSpace(_))), "{refused:?}");
    assert_eq!(read_all(&log, 0, 1 << 20), frames[..appended]);
    log.shared.spares.set_disk_full(false);
    writer.append_synced(&frames[appended..]).unwrap();
    assert_eq!(read_all(&log, 0, 1 << 20), frames);
    drop((log, writer));
    assert_eq!(reopen(dir.path()).replayed, frames);
}

#[test]
fn segments_go_when_they_are_applied_and_nobody_holds_them() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    append_each(&mut writer, &chain(Link::default(), 20, 3_000));
    log.release(3).unwrap();
    assert_eq!(log.truncated(), 0, "seq 4 is in the first segment");
    let hold = log.hold(9, 3 * (16 << 10)).unwrap();
    log.release(16).unwrap();
    assert_eq!(log.truncated(), 8, "9 is held, 8 ends a segment");
    assert!(!hold.has_lapsed(), "it may cost these three segments");
    drop(hold);
    log.release(16).unwrap();
    assert_eq!(log.truncated(), 16);
    log.release(20).unwrap();
    assert_eq!(
        (log.truncated(), log.stats().segments),
        (16, 1),
        "the last one stays"
    );
    assert_eq!(log.read_after(15, 100).unwrap(), ReadFrames::Truncated);
    drop((log, writer));
    let why = refusal(dir.path(), Position::new(1, 15), Position::new(1, 15));
    assert!(why.contains("segments before it are missing"), "{why}");
    let applied = Position::new(1, 18);
    assert_eq!(
        open(dir.path(), applied, applied).unwrap().replayed.len(),
        2
    );
}

#[test]
fn retention_keeps_applied_segments() {
    let dir = tempfile::tempdir().unwrap();
    let retaining = LogOptions {
        retention_bytes: 2 * (16 << 10),
        ..options()
    };
    let (log, mut writer) = Log::create(dir.path(), HISTORY, Link::default(), retaining).unwrap();
    append_each(&mut writer, &chain(Link::default(), 20, 3_000));
    log.release(20).unwrap();
    assert_eq!((log.truncated(), log.stats().segments), (8, 3));
}

/// The files of segments that left are used again, and what they held before is never read as frames.
#[test]
fn remains_are_not_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let mut frames = Vec::new();
    for round in 0..57_u64 {
        // Frames of one length lie in the new life exactly where they lay in the former one.
        let more = chain(writer.end(), 1, 3_000);
        append_each(&mut writer, &more);
        frames.extend(more);
        log.release(round.saturating_sub(8)).unwrap();
        let rest = read_all(&log, log.truncated(), 1 << 20);
        assert_eq!(rest, frames[frames.len() - rest.len()..]);
    }
    drop((log, writer));
    let file = std::fs::read(segment(dir.path(), 15)).unwrap();
    let at = usize::try_from(place_after(&frames[56..])).unwrap();
    let remains = Frame::split_from(&mut Bytes::from(file).slice(at..)).unwrap();
    assert!(remains.header.first_seq < 57, "a frame of the former life");
    let opened = open(dir.path(), Position::new(1, 50), Position::new(1, 57)).unwrap();
    assert_eq!(opened.replayed, frames[50..]);
    assert_eq!(opened.recovered.cut, None, "remains are no torn frame");
}

#[test]
fn recycled_files_are_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    for _ in 0..100 {
        let more = chain(writer.end(), 1, 3_000);
        append_each(&mut writer, &more);
        log.release(log.durable().seq).unwrap();
    }
    let stats = log.stats();
    assert_eq!((stats.segments, stats.bytes), (1, 16 << 10));
    drop((log, writer));
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        names.len() <= 4,
        "one segment, two spares, the window: {names:?}"
    );
}

/// A reader is in the middle of a segment when it leaves the log: its file must not be written to.
#[test]
fn a_segment_that_is_being_read_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let frames = chain(Link::default(), 9, 3_000);
    append_each(&mut writer, &frames);
    let read = std::sync::Arc::clone(&log.shared.state().segments[0]);
    log.release(9).unwrap();
    let more = chain(writer.end(), 20, 3_000);
    append_each(&mut writer, &more);
    assert_eq!(read.read(HEADER_BYTES, 40).unwrap(), frames[0].bytes[..40]);
    assert!(!read.path.exists());
}

/// A reader that had stopped reading kept its hold, and with it the log without a bound.
#[test]
fn a_hold_that_costs_more_than_its_limit_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let frames = chain(Link::default(), 20, 3_000);
    append_each(&mut writer, &frames[..12]);
    let hold = log.hold(0, 3 * (16 << 10)).unwrap();
    log.release(12).unwrap();
    assert_eq!((log.truncated(), hold.has_lapsed()), (0, false));
    append_each(&mut writer, &frames[12..]);
    log.release(19).unwrap();
    assert_eq!(log.truncated(), 16, "nobody holds anything");
    assert!(
        hold.has_lapsed(),
        "that the rest is short enough does not bring back what is gone"
    );
    assert_eq!(log.read_after(0, 1).unwrap(), ReadFrames::Truncated);
}

#[test]
fn holds_are_few() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer) = create(dir.path());
    let mut holds: Vec<_> = (0..4).map(|_| log.hold(0, 1 << 20).unwrap()).collect();
    assert!(log.hold(0, 1 << 20).is_none());
    holds.pop();
    assert!(log.hold(0, 1 << 20).is_some());
}
