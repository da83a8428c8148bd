//! Whatever comes from outside is decoded or refused: no bytes make a decoder panic or reserve memory for what is not
//! there, and what is decoded can be written and read again.
//!
//! Every decoder of the protocol stands in [`table`] with some valid inputs. Here they get rubbish and damaged valid
//! inputs; `kvclient/fuzz` gives the same table to a fuzzer, which looks for inputs by itself.

mod table;

use proptest::prelude::*;

use table::{ALL, Decoder};

/// More than any test here needs for itself, and far less than a length field of four bytes can ask for.
const RESERVED_BYTES: u64 = 1 << 30;

/// What may happen to a valid input: how, where, and with what.
type Damage = (u8, prop::sample::Index, u8);

fn damaged(mut input: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for (how, at, with) in damages {
        if input.is_empty() {
            return input;
        }
        let at = at.index(input.len());
        match how % 6 {
            0 => input[at] ^= 1 << (with % 8),
            1 => input[at] = *with,
            2 => input.truncate(at),
            3 => input.insert(at, *with),
            4 => drop(input.remove(at)),
            // Where a length stands, as large a one as there is.
            _ => {
                let end = input.len().min(at + 4);
                input[at..end].fill(0xff);
            }
        }
    }
    input
}

/// Most memory that the process ever had reserved, in bytes; none where the system does not tell.
fn reserved_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmPeak:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn all() -> impl Iterator<Item = &'static Decoder> {
    ALL.iter().flat_map(|(_, decoders)| *decoders)
}

/// Tries inputs out on every decoder; what one of them reserves is noticed.
fn try_all(input_for: impl Fn(&Decoder) -> BoxedStrategy<Vec<u8>>) {
    let before = reserved_bytes();
    // A failure tells its input; a file of them would only stand in the way.
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    for decoder in all() {
        proptest!(config.clone(), |(input in input_for(decoder))| {
            decoder.check(&input);
        });
    }
    if let (Some(before), Some(after)) = (before, reserved_bytes()) {
        let grown = after - before;
        assert!(grown < RESERVED_BYTES, "{grown} bytes were reserved");
    }
}

#[test]
fn every_family_has_a_fuzz_target() {
    for (family, _) in ALL {
        let target = format!(
            "{}/fuzz/fuzz_targets/{family}.rs",
            env!("CARGO_MANIFEST_DIR")
        );
        assert!(std::path::Path::new(&target).exists(), "{target}");
    }
}

#[test]
fn valid_inputs_are_decoded() {
    for decoder in all() {
        for input in (decoder.valid)() {
            let written = (decoder.decode)(&input);
            assert!(written.is_some(), "{}: {input:?}", decoder.name);
            decoder.check(&input);
        }
    }
}

#[test]
fn rubbish_is_decoded_or_refused() {
    try_all(|_| prop::collection::vec(any::<u8>(), 0..300).boxed());
}

#[test]
fn damaged_inputs_are_decoded_or_refused() {
    try_all(|decoder| {
        let damages = prop::collection::vec(any::<Damage>(), 1..6);
        (prop::sample::select((decoder.valid)()), damages)
            .prop_map(|(input, damages)| damaged(input, &damages))
            .boxed()
    });
}
