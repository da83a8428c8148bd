//! The decoders of the protocol: what each reads, and how what it has read is written again.

mod bytes;
mod streams;
mod text;

/// One decoder.
pub(crate) struct Decoder {
    /// What it reads.
    pub(crate) name: &'static str,
    /// Reads an input and writes it again; `None` if it is refused.
    pub(crate) decode: fn(&[u8]) -> Option<Vec<u8>>,
    /// Inputs that are not refused.
    pub(crate) valid: fn() -> Vec<Vec<u8>>,
}

impl Decoder {
    /// Decodes an input. What it has read is, written and read again, the same.
    pub(crate) fn check(&self, input: &[u8]) {
        let Some(written) = (self.decode)(input) else {
            return;
        };
        let is_kept = (self.decode)(&written).as_ref() == Some(&written);
        let shown = input.escape_ascii();
        assert!(is_kept, "{} changes when read again: {shown}", self.name);
    }
}

/// All of them, by the file they stand in.
pub(crate) const ALL: &[(&str, &[Decoder])] = &[
    (
        "bytes",
        &[
            bytes::OPS,
            bytes::RESULTS,
            bytes::FRAMES,
            bytes::SEALED_FRAME,
            bytes::LINEAGE,
        ],
    ),
    (
        "streams",
        &[
            streams::SCAN,
            streams::SNAPSHOT,
            streams::SEALED_CHUNK,
            streams::WATCH,
        ],
    ),
    (
        "text",
        &[
            text::KEY_IN_PATH,
            text::KEY_IN_QUERY,
            text::QUERY,
            text::DURATION,
            text::POSITION,
            text::ETAG,
            text::LINEAGE,
            text::AFTER,
            text::TOKEN,
            text::ADDRESS,
            text::LOCATION,
            text::REFUSAL,
            text::PULL,
            text::PULL_ANSWER,
            text::MAP,
            text::MAP_FILE,
        ],
    ),
];
