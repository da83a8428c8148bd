//! What is left after a kill or a power cut.

use super::*;
use crate::log::{
    CutTail,
    window::{Span, Window},
};

#[test]
fn a_torn_frame_is_cut_wherever_it_tore() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 4, 20);
    let file = closed(dir.path(), &frames);
    let kept = &frames[..3];
    let at = place_after(kept);
    let last = &frames[3].bytes;
    for arrived in 0..last.len() {
        let mut torn = vec![0; last.len()];
        torn[..arrived].copy_from_slice(&last[..arrived]);
        patch(&file, at, &torn);
        let floor = Position::new(1, 3);
        let opened = open(dir.path(), Position::ZERO, floor).unwrap();
        assert_eq!(opened.replayed, kept, "{arrived} bytes arrived");
        assert_eq!(read_all(&opened.log, 0, 1 << 20), kept);
        let expected = (arrived >= 40).then(|| CutTail {
            after: floor,
            bytes: last.len() as u64,
            file: file.clone(),
        });
        if !(12..40).contains(&arrived) {
            assert_eq!(opened.recovered.cut, expected, "{arrived} bytes arrived");
        }
        drop(opened);
        let rest = std::fs::read(&file).unwrap();
        let at = usize::try_from(at).unwrap();
        assert!(rest[at..].iter().all(|&b| b == 0), "{arrived}: not zeroed");
    }
}

#[test]
fn a_torn_frame_below_the_floor_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 4, 20);
    let file = closed(dir.path(), &frames);
    flip(&file, place_after(&frames[..3]) + 45);
    let why = refusal(dir.path(), Position::ZERO, Position::new(1, 4));
    for part in ["byte", "seq 4", "durable up to 1.4", "0000000000000001.seg"] {
        assert!(why.contains(part), "{part}: {why}");
    }
}

/// Six frames, the last four appended at once; `lost` of them never reached the disk.
fn power_cut(dir: &Path, lost: &[usize]) -> (PathBuf, Vec<Frame>) {
    let frames = chain(Link::default(), 6, 20);
    let (_, mut writer) = create(dir);
    append_each(&mut writer, &frames[..2]);
    writer.append_synced(&frames[2..]).unwrap();
    let file = segment(dir, 1);
    for &nth in lost {
        let zeros = vec![0; frames[nth].bytes.len()];
        patch(&file, place_after(&frames[..nth]), &zeros);
    }
    (file, frames)
}

#[test]
fn of_several_frames_at_once_any_may_be_missing() {
    for lost in [&[2][..], &[3], &[4], &[5], &[2, 3], &[3, 5], &[2, 3, 4, 5]] {
        let dir = tempfile::tempdir().unwrap();
        let (_, frames) = power_cut(dir.path(), lost);
        let opened = open(dir.path(), Position::ZERO, Position::new(1, 2)).unwrap();
        assert_eq!(opened.replayed, frames[..lost[0]], "lost {lost:?}");
        let later = (lost[0]..6).any(|nth| !lost.contains(&nth));
        assert_eq!(opened.recovered.cut.is_some(), later, "lost {lost:?}");
        drop(opened);
        assert_eq!(Window::read(dir.path()), None, "the window is closed");
        assert_eq!(reopen(dir.path()).replayed, frames[..lost[0]]);
    }
}

#[test]
fn the_window_excuses_its_own_seqs_only() {
    for (span, excused) in [
        (Some(Span { after: 2, end: 6 }), true),
        (Some(Span { after: 3, end: 6 }), true),
        (Some(Span { after: 4, end: 6 }), false),
        (Some(Span { after: 2, end: 5 }), false),
        (None, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        power_cut(dir.path(), &[3]);
        let window = Window::open(dir.path()).unwrap();
        match span {
            Some(span) => window.set(span).unwrap(),
            None => patch(&dir.path().join("window"), 9, b"?"),
        }
        let opened = open(dir.path(), Position::ZERO, Position::ZERO);
        assert_eq!(opened.is_ok(), excused, "{span:?}");
    }
}

#[test]
fn the_window_excuses_nothing_below_the_floor() {
    let dir = tempfile::tempdir().unwrap();
    power_cut(dir.path(), &[3]);
    let why = refusal(dir.path(), Position::ZERO, Position::new(1, 6));
    assert!(why.contains("durable up to 1.6"), "{why}");
}

#[test]
fn a_broken_window_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (_, frames) = power_cut(dir.path(), &[]);
    patch(&dir.path().join("window"), 9, b"?");
    assert_eq!(reopen(dir.path()).replayed, frames);
    std::fs::remove_file(dir.path().join("window")).unwrap();
    assert_eq!(reopen(dir.path()).replayed, frames);
}

#[test]
fn one_more_frame_ends_what_the_window_excuses() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 5, 20);
    {
        let (_, mut writer) = create(dir.path());
        writer.append_synced(&frames[..4]).unwrap();
        append_each(&mut writer, &frames[4..]);
    }
    flip(&segment(dir.path(), 1), place_after(&frames[..1]) + 3);
    let why = refusal(dir.path(), Position::ZERO, Position::ZERO);
    assert!(why.contains("seq 2"), "{why}");
}

/// The crash points of going on to the next segment: a spare with a header, and an empty segment.
#[test]
fn a_crash_while_a_segment_is_begun_leaves_a_spare_or_an_empty_segment() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 5, 3_000);
    closed(dir.path(), &frames);
    let second = segment(dir.path(), 2);
    patch(&second, HEADER_BYTES, &vec![0; frames[4].bytes.len()]);
    let opened = open(dir.path(), Position::ZERO, Position::new(1, 4)).unwrap();
    assert_eq!(opened.replayed, frames[..4], "an empty segment");
    drop(opened);
    let fourth = Position::new(1, 4);
    let opened = open(dir.path(), fourth, fourth).unwrap();
    assert_eq!(opened.recovered.end_time_ms, frames[3].header.time_ms);
    drop(opened);
    std::fs::rename(&second, dir.path().join("spare-900.seg")).unwrap();
    std::fs::write(dir.path().join("spare-901.new"), b"half").unwrap();
    std::fs::write(dir.path().join("spare-902.seg"), b"of another size").unwrap();
    let mut opened = open(dir.path(), Position::ZERO, fourth).unwrap();
    assert_eq!(opened.replayed, frames[..4], "a spare with a header");
    append_each(&mut opened.writer, &frames[4..]);
    assert_eq!(read_all(&opened.log, 0, 1 << 20), frames);
    assert!(!dir.path().join("spare-901.new").exists());
    assert!(!dir.path().join("spare-902.seg").exists());
}

/// Two good frames, then one whose value is `value`.
fn with_value(value: Vec<u8>) -> Vec<Frame> {
    let mut frames = chain(Link::default(), 2, 20);
    let effect = Effect::Put {
        value: value.into(),
        expires_at_ms: None,
    };
    let mut builder = FrameBuilder::new();
    builder.push(&Record::new(Bytes::from_static(b"key"), effect));
    frames.push(builder.finish(&frames[1].header.link(), 1, 9));
    frames
}

/// A value that holds a copy of a frame must not make a torn frame look like damage.
#[test]
fn a_frame_inside_a_value_is_not_a_later_frame() {
    let later = |seq: Seq| {
        let after = Link {
            position: Position::new(1, seq - 1),
            crc: 9,
        };
        frame(&after, 1, 1, 20).bytes
    };
    let far = with_value(later(40).to_vec());
    let near = with_value([&[7; 500][..], &later(5), &[7; 500]].concat());
    // With a broken header its seq tells, which does not fit the few bytes; with a whole one, its place.
    for (frames, broken_byte) in [(far, 0), (near, 1_000)] {
        let dir = tempfile::tempdir().unwrap();
        let file = closed(dir.path(), &frames);
        flip(&file, place_after(&frames[..2]) + broken_byte);
        assert_eq!(reopen(dir.path()).replayed, frames[..2]);
    }
}

/// Seen from the front, a header whose length is a multiple of 256 begins like the zeros before it.
#[test]
fn a_later_frame_that_begins_with_a_zero_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let first = frame(&Link::default(), 1, 1, 4_096 - 51);
    let second = frame(&first.header.link(), 1, 1, 512 - 11);
    assert_eq!((first.bytes.len(), second.bytes[0]), (4_096, 0));
    let file = closed(dir.path(), &[first.clone(), second]);
    patch(&file, HEADER_BYTES, &vec![0; first.bytes.len()]);
    let why = refusal(dir.path(), Position::ZERO, Position::ZERO);
    assert!(why.contains("later frames are there, seqs 2 to 2"), "{why}");
}

/// After a kill the page cache may be ahead of the disk, so what is kept is written again. A test cannot look
/// below the cache, but it can see which files were written.
#[test]
fn what_is_kept_above_the_floor_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let frames = chain(Link::default(), 14, 3_000);
    closed(dir.path(), &frames);
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let file = |number| {
        std::fs::File::options()
            .write(true)
            .open(segment(dir.path(), number))
    };
    for number in 1..=4 {
        file(number).unwrap().set_modified(long_ago).unwrap();
    }
    drop(open(dir.path(), Position::new(1, 5), Position::new(1, 10)).unwrap());
    let written = |number| {
        file(number)
            .unwrap()
            .metadata()
            .unwrap()
            .modified()
            .unwrap()
            > long_ago
    };
    assert_eq!([1, 2, 3, 4].map(written), [false, false, true, true]);
    assert_eq!(reopen(dir.path()).replayed, frames);
}
