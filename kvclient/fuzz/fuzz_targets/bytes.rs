//! Gives the fuzzer's inputs to the decoders of `table/bytes.rs`; the first byte chooses one.

#![no_main]

#[allow(dead_code, reason = "the valid inputs are for the tests")]
#[path = "../../tests/decoders/table/mod.rs"]
mod table;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let family = table::ALL.iter().find(|(name, _)| *name == "bytes");
    let (_, decoders) = family.expect("it stands in the table");
    if let Some((first, rest)) = input.split_first() {
        decoders[usize::from(*first) % decoders.len()].check(rest);
    }
});
