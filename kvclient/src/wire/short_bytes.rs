//! Bytes that are mostly short: up to 38 stand where they are kept, more have memory of their own.
//!
//! Made for remembered outcomes. Every write has one, the node keeps it in three places, and that of a plain write has
//! 28 bytes, or 36 with its expiry: each would be an allocation or two.
//!
//! Invariant: they never hold the memory of what they were copied from.

use std::{fmt, ops::Deref, sync::Arc};

/// So many, with length and kind, fill 40 bytes.
const SHORT_BYTES: usize = 38;

/// A few bytes, cheap to clone.
#[derive(Clone)]
pub struct ShortBytes(Kept);

#[derive(Clone)]
enum Kept {
    Here(u8, [u8; SHORT_BYTES]),
    Apart(Arc<[u8]>),
}

impl Deref for ShortBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Here(len, bytes) => &bytes[..usize::from(*len)],
            Kept::Apart(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for ShortBytes {
    fn from(bytes: &[u8]) -> Self {
        match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= SHORT_BYTES => {
                let mut here = [0; SHORT_BYTES];
                here[..bytes.len()].copy_from_slice(bytes);
                Self(Kept::Here(len, here))
            }
            _ => Self(Kept::Apart(bytes.into())),
        }
    }
}

impl Default for ShortBytes {
    fn default() -> Self {
        Self(Kept::Here(0, [0; SHORT_BYTES]))
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for ShortBytes {}

impl fmt::Debug for ShortBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_not_they_are_the_same_bytes() {
        let all: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        for len in [0, 1, SHORT_BYTES, SHORT_BYTES + 1, 255, 256, 1_000] {
            let kept = ShortBytes::from(&all[..len]);
            assert_eq!(&kept[..], &all[..len]);
            assert_eq!(kept.clone(), kept);
            assert_eq!(kept == ShortBytes::default(), len == 0);
        }
        assert_eq!(size_of::<ShortBytes>(), 40);
    }
}
