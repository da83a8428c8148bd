//! SHA-256 of a token: what a node keeps of one. Whoever reads the file of digests cannot make a token of it.
//!
//! Plain SHA-256, since tokens are random and long: there is nothing to guess that a slower function would protect.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Digest of a token. In words, since all that are known are compared for each request: byte by byte that took 180 ns for
/// each of them, so it takes 2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u64; 4]);

impl Digest {
    /// That of a token's text.
    pub fn of(token: &[u8]) -> Self {
        Self::of_bytes(Sha256::digest(token).into())
    }

    /// From 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut digest = [0; 32];
        if !rest.is_empty() || pairs.len() != digest.len() {
            return None;
        }
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Some(Self::of_bytes(digest))
    }

    fn of_bytes(bytes: [u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks();
        Self(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }

    /// Whether two are the same, in a time that does not depend on where they differ.
    pub fn equals(&self, other: &Self) -> Choice {
        let differing = |at: usize| self.0[at] ^ other.0[at];
        (differing(0) | differing(1) | differing(2) | differing(3)).ct_eq(&0)
    }
}

/// Not its bytes: log lines keep away from credentials.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FIPS 180-2, appendix B.1.
    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn it_is_sha_256() {
        let digest = Digest::from_hex(OF_ABC).unwrap();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(Digest::from_hex(&OF_ABC.to_uppercase()), Some(digest));
        assert!(bool::from(digest.equals(&Digest::of(b"abc"))));
        assert!(!bool::from(digest.equals(&Digest::of(b"abd"))));
        // A difference counts wherever it is.
        for at in 0..64 {
            let other = if OF_ABC.as_bytes()[at] == b'0' {
                "1"
            } else {
                "0"
            };
            let text = format!("{}{other}{}", &OF_ABC[..at], &OF_ABC[at + 1..]);
            let near = Digest::from_hex(&text).unwrap();
            assert!(!bool::from(digest.equals(&near)), "{at}");
        }
        assert_eq!(format!("{digest:?}"), "***");
    }

    #[test]
    fn what_is_no_digest() {
        for text in [
            "",
            &OF_ABC[1..],
            &format!("{OF_ABC}00"),
            &OF_ABC.replace('b', "x"),
            &OF_ABC.replacen("ba", "+a", 1),
        ] {
            assert_eq!(Digest::from_hex(text), None, "{text}");
        }
    }
}
