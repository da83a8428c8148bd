//! E2: rubbish and damaged valid inputs for every decoder of the protocol. None panics, none reserves memory for what
//! is not there, and what one decodes stays the same when it is written and read again.
//!
//! The decoders are those of `kvclient/tests/decoders/table`, which the fuzz targets of `kvclient/fuzz` share. What only
//! the node decodes has property tests in its own files.

use std::{fs, panic};

use crate::support::{
    bar,
    report::{self, Row},
    seeded,
};
use table::{ALL, Decoder};

#[path = "../../../kvclient/tests/decoders/table/mod.rs"]
mod table;

/// Longest rubbish.
const RUBBISH_BYTES: usize = 400;

/// Far more than these tests need, and less than a length of four bytes can ask for.
const RESERVED_KIB: u64 = 1 << 20;

#[test]
fn e2_no_bytes_make_a_decoder_panic() {
    let mut row = Row::begin("E2");
    let inputs = if bar() { 200_000 } else { 1_000 };
    let before = reserved_kib();
    let (mut decoders, mut decoded) = (0, 0);
    for decoder in ALL.iter().flat_map(|(_, decoders)| *decoders) {
        decoders += 1;
        decoded += try_out(decoder, inputs);
        row.rounds += inputs;
    }
    let reserved = reserved_kib().saturating_sub(before);
    assert!(reserved < RESERVED_KIB, "{reserved} KiB were reserved");
    row.figures = format!(
        "{decoders} decoders, {inputs} inputs each: 0 panics; {decoded} were decoded, and the same when written and read \
         again; {} MiB more were reserved at most",
        reserved >> 10
    );
    row.save();
}

/// A decoder that believes a length is found out by the same inputs.
#[test]
fn e2_control_a_decoder_that_trusts_a_length_panics() {
    const CARELESS: Decoder = Decoder {
        name: "a length and so many bytes",
        decode: |input| {
            let length = usize::from(*input.first()?);
            Some(input[..=length].to_vec())
        },
        valid: || vec![vec![3, b'a', b'b', b'c']],
    };
    let found = panic::catch_unwind(|| try_out(&CARELESS, 1_000));
    assert!(found.is_err());
    report::save_control(
        "E2",
        "a decoder looks whether the bytes are there",
        "a panic within 1,000 inputs",
    );
}

/// Gives a decoder so many inputs; how many of them it decoded.
fn try_out(decoder: &Decoder, inputs: usize) -> usize {
    let mut rng = seeded();
    let valid = (decoder.valid)();
    let mut decoded = 0;
    for number in 0..inputs {
        let input = match number % 4 {
            0 => rubbish(&mut rng),
            _ => damaged(valid[rng.usize(..valid.len())].clone(), &mut rng),
        };
        decoder.check(&input);
        decoded += usize::from((decoder.decode)(&input).is_some());
    }
    decoded
}

fn rubbish(rng: &mut fastrand::Rng) -> Vec<u8> {
    let length = rng.usize(..RUBBISH_BYTES);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// A valid input with one to four bytes changed, put in, taken out, or a length made as large as there is.
fn damaged(mut input: Vec<u8>, rng: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..rng.usize(1..5) {
        if input.is_empty() {
            break;
        }
        let at = rng.usize(..input.len());
        match rng.u8(..6) {
            0 => input[at] ^= 1 << rng.u8(..8),
            1 => input[at] = rng.u8(..),
            2 => input.truncate(at),
            3 => input.insert(at, rng.u8(..)),
            4 => drop(input.remove(at)),
            _ => {
                let end = input.len().min(at + 4);
                input[at..end].fill(0xff);
            }
        }
    }
    input
}

/// Most memory that this process ever had reserved.
fn reserved_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let text = line.and_then(|line| line.trim().strip_suffix(" kB"));
    text.expect("VmPeak").trim().parse().expect("a number")
}
