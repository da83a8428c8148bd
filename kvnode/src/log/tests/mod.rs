//! Tests of the log as a whole, on real files.

mod crash;
mod damage;
mod model;
mod reading;
mod writing;

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use kvclient::{
    position::{Epoch, Position, Seq},
    wire::log::{Effect, Frame, FrameBuilder, Link, Record},
};

use super::{
    Log, LogError, LogOptions, LogWriter, ReadFrames, Recovered, StartFrom, files::segment_path,
    header::HEADER_BYTES,
};

const HISTORY: u128 = 0xabc;

/// What `open` gives, and what it replayed.
struct Opened {
    log: Log,
    writer: LogWriter,
    recovered: Recovered,
    replayed: Vec<Frame>,
}

/// Segments of 16 KiB that are let go of as soon as they are applied.
fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        retention_bytes: 0,
        max_frame_bytes: 8 << 10,
    }
}

fn create(dir: &Path) -> (Log, LogWriter) {
    Log::create(dir, HISTORY, Link::default(), options()).unwrap()
}

fn open(dir: &Path, applied: Position, floor: Position) -> Result<Opened, LogError> {
    let mut replayed = Vec::new();
    let mut replay = |frame| {
        replayed.push(frame);
        Ok(())
    };
    let start = StartFrom { applied, floor };
    let (log, writer, recovered) = Log::open(dir, HISTORY, start, options(), &mut replay)?;
    Ok(Opened {
        log,
        writer,
        recovered,
        replayed,
    })
}

/// Opens a log of which LMDB knows nothing yet.
fn reopen(dir: &Path) -> Opened {
    open(dir, Position::ZERO, Position::ZERO).unwrap()
}

fn refusal(dir: &Path, applied: Position, floor: Position) -> String {
    match open(dir, applied, floor) {
        Err(LogError::Refused(why)) => why,
        Err(other) => panic!("not refused but {other}"),
        Ok(opened) => panic!("not refused but opened: {:?}", opened.recovered),
    }
}

/// A frame of `count` puts; the last has a value of `value_bytes`.
fn frame(after: &Link, epoch: Epoch, count: u64, value_bytes: usize) -> Frame {
    let mut builder = FrameBuilder::new();
    for nth in 1..=count {
        let value = vec![b'v'; if nth == count { value_bytes } else { 1 }];
        let effect = Effect::Put {
            value: value.into(),
            expires_at_ms: None,
        };
        builder.push(&Record::new(Bytes::from_static(b"key"), effect));
    }
    builder.finish(after, epoch, 1_000 + after.position.seq)
}

/// A chain of frames with one record each.
fn chain(after: Link, frames: usize, value_bytes: usize) -> Vec<Frame> {
    let mut end = after;
    let mut next = || {
        let frame = frame(&end, 1, 1, value_bytes);
        end = frame.header.link();
        frame
    };
    (0..frames).map(|_| next()).collect()
}

/// Appends one by one, each with its own sync.
fn append_each(writer: &mut LogWriter, frames: &[Frame]) {
    for frame in frames {
        writer.append_synced(std::slice::from_ref(frame)).unwrap();
    }
}

/// All frames after `seq`, read in pieces of `max_bytes`.
fn read_all(log: &Log, mut seq: Seq, max_bytes: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        match log.read_after(seq, max_bytes).unwrap() {
            ReadFrames::UpToDate => return frames,
            ReadFrames::Truncated => panic!("truncated at {seq}"),
            ReadFrames::Frames(mut bytes) => {
                while !bytes.is_empty() {
                    let frame = Frame::split_from(&mut bytes).unwrap();
                    seq = frame.header.last_seq();
                    frames.push(frame);
                }
            }
        }
    }
}

/// A log of `frames` in one segment, closed.
fn closed(dir: &Path, frames: &[Frame]) -> PathBuf {
    let (_, mut writer) = create(dir);
    append_each(&mut writer, frames);
    segment(dir, 1)
}

fn end_of(frames: &[Frame]) -> Position {
    frames.last().unwrap().header.link().position
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    segment_path(dir, number)
}

/// Byte at which the frame after `before` begins, if all are in one segment.
fn place_after(before: &[Frame]) -> u64 {
    HEADER_BYTES + before.iter().map(|f| f.bytes.len() as u64).sum::<u64>()
}

fn patch(file: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn flip(file: &Path, at: u64) {
    let open = OpenOptions::new().read(true).write(true).open(file);
    let file = open.unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}
