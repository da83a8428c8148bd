//! Readers: what they get, and that it is durable.

use super::*;

/// A log of several segments with frames of one to three records.
fn varied(dir: &Path) -> (Log, LogWriter, Vec<Frame>) {
    let (log, mut writer) = create(dir);
    let mut frames = Vec::new();
    for nth in 0..60 {
        let next = frame(&writer.end(), 1, 1 + nth % 3, 900);
        append_each(&mut writer, std::slice::from_ref(&next));
        frames.push(next);
    }
    (log, writer, frames)
}

#[test]
fn from_every_seq_in_pieces_of_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer, frames) = varied(dir.path());
    let check = |log: &Log| {
        for seq in 0..log.durable().seq {
            let first = frames.iter().position(|f| f.header.last_seq() > seq);
            let expected = &frames[first.unwrap()..];
            for max_bytes in [0, 1, 1_000, 3_000, 1 << 20] {
                assert_eq!(read_all(log, seq, max_bytes), expected, "{seq} {max_bytes}");
            }
        }
    };
    check(&log);
    drop((log, writer));
    check(&reopen(dir.path()).log);
    // Segments before the one that recovery reads are learnt by the readers.
    let end = end_of(&frames);
    check(&open(dir.path(), end, end).unwrap().log);
}

#[test]
fn pieces_are_as_large_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer, frames) = varied(dir.path());
    let sizes: Vec<usize> = frames.iter().map(|f| f.bytes.len()).collect();
    for (max_bytes, expected) in [
        (1, sizes[0]),
        (sizes[0] + sizes[1] - 1, sizes[0]),
        (sizes[0] + sizes[1], sizes[0] + sizes[1]),
    ] {
        let ReadFrames::Frames(bytes) = log.read_after(0, max_bytes).unwrap() else {
            panic!("nothing after 0");
        };
        assert_eq!(bytes.len(), expected, "at most {max_bytes}");
    }
}

#[test]
fn links_are_at_the_ends_of_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer, frames) = varied(dir.path());
    for seq in 0..=log.durable().seq + 1 {
        let ending = frames.iter().find(|f| f.header.last_seq() == seq);
        let expected = match seq {
            0 => Some(Link::default()),
            _ => ending.map(|f| f.header.link()),
        };
        assert_eq!(log.link_at(seq).unwrap(), expected, "seq {seq}");
    }
    log.release(log.durable().seq).unwrap();
    let truncated = log.truncated();
    assert_eq!(log.link_at(truncated - 1).unwrap(), None);
    let link = log.link_at(truncated).unwrap().unwrap();
    assert_eq!(link.position.seq, truncated);
}

#[test]
fn up_to_date_or_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer, _) = varied(dir.path());
    let end = log.durable().seq;
    for seq in [end, end + 1, Seq::MAX] {
        assert_eq!(log.read_after(seq, 10).unwrap(), ReadFrames::UpToDate);
    }
    log.release(end).unwrap();
    let truncated = log.truncated();
    assert_eq!(
        log.read_after(truncated - 1, 10).unwrap(),
        ReadFrames::Truncated
    );
    let first = log.read_after(truncated, 10).unwrap();
    assert!(matches!(first, ReadFrames::Frames(_)), "{first:?}");
}

/// What is in the file but not synced is not there for readers.
#[test]
fn only_durable_frames_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let frames = chain(Link::default(), 3, 10);
    append_each(&mut writer, &frames[..2]);
    patch(
        &segment(dir.path(), 1),
        place_after(&frames[..2]),
        &frames[2].bytes,
    );
    assert_eq!(read_all(&log, 0, 1 << 20), frames[..2]);
    assert_eq!(log.read_after(2, 100).unwrap(), ReadFrames::UpToDate);
    assert_eq!(log.link_at(3).unwrap(), None);
}

#[test]
fn who_waits_is_woken_by_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let mut durable = log.subscribe();
    assert!(!durable.has_changed().unwrap());
    append_each(&mut writer, &chain(Link::default(), 1, 10));
    assert!(durable.has_changed().unwrap());
    assert_eq!(*durable.borrow_and_update(), Position::new(1, 1));
}

#[test]
fn damaged_frames_are_not_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let frames = chain(Link::default(), 5, 10);
    append_each(&mut writer, &frames);
    for byte in 0..frames[2].bytes.len() as u64 {
        let file = segment(dir.path(), 1);
        flip(&file, place_after(&frames[..2]) + byte);
        let before = log.read_after(0, 1 << 20).unwrap();
        let good: Vec<u8> = frames[..2].iter().flat_map(|f| f.bytes.to_vec()).collect();
        assert_eq!(before, ReadFrames::Frames(good.into()), "byte {byte}");
        let Err(LogError::Refused(why)) = log.read_after(2, 1 << 20) else {
            panic!("damage at byte {byte} was given out");
        };
        assert!(
            why.contains("seq 3") && why.contains("0000000000000001.seg"),
            "{why}"
        );
        flip(&file, place_after(&frames[..2]) + byte);
    }
    assert_eq!(read_all(&log, 0, 1 << 20), frames);
}

#[test]
fn readers_follow_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = create(dir.path());
    let frames = chain(Link::default(), 300, 400);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = Vec::new();
            while read.len() < frames.len() {
                read.extend(read_all(&log, read.len() as u64, 2_000));
                log.release((read.len() as u64).saturating_sub(40)).unwrap();
            }
            read
        });
        for several in frames.chunks(7) {
            writer.append_synced(several).unwrap();
        }
        reader.join().unwrap()
    });
    assert_eq!(read, frames);
}
