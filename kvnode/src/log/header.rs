//! The page at the start of a segment: which segment of which history it is, and what its first frame follows.
//!
//! All integers are little-endian:
//!
//! ```text
//! offset  size  field
//!      0     4  magic       "KVLG"
//!      4     4  format      kvclient::wire::log::LOG_FORMAT
//!      8     8  number      the one in the file's name, from 1
//!     16    16  history     id of the shard's history
//!     32     8  base_seq    last seq before this segment
//!     40     4  base_epoch  its epoch
//!     44     4  base_crc    header CRC of the last frame before this segment, 0 if there is none
//!     48    12  zero
//!     60     4  crc         CRC32C of bytes 0..60
//!     64  4032  zero
//!   4096     -  frames, one behind the other; then zeros or the remains of the file's former life
//! ```

use kvclient::{
    position::{Epoch, Position, Seq},
    wire::log::{LOG_FORMAT, Link},
};

/// Bytes before the first frame: one page, so that no frame shares one with the header.
pub(super) const HEADER_BYTES: u64 = 4096;
pub(super) const HEADER_USED_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"KVLG";

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Counts up by one from segment to segment.
    pub(super) number: u64,
    /// The history whose records it holds.
    pub(super) history: u128,
    /// What its first frame follows.
    pub(super) base: Link,
}

impl SegmentHeader {
    /// The used bytes of the header's page.
    pub(super) fn to_bytes(self) -> [u8; HEADER_USED_BYTES] {
        let mut bytes = [0; HEADER_USED_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&LOG_FORMAT.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.history.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.base.position.seq.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.base.position.epoch.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.base.crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header, or says what is wrong with it.
    pub(super) fn parse(bytes: &[u8; HEADER_USED_BYTES]) -> Result<Self, String> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..4] != MAGIC {
            return Err("this is not a log segment (its first four bytes are not KVLG)".into());
        }
        if u32_at(60) != crc32c::crc32c(&bytes[..60]) {
            return Err("the segment's header is damaged (its checksum is wrong)".into());
        }
        if u32_at(4) != LOG_FORMAT {
            let format = u32_at(4);
            return Err(format!(
                "the segment has format {format}, this program reads {LOG_FORMAT}"
            ));
        }
        let (seq, epoch): (Seq, Epoch) = (u64_at(32), u32_at(40));
        Ok(Self {
            number: u64_at(8),
            history: u128::from(u64_at(16)) | u128::from(u64_at(24)) << 64,
            base: Link {
                position: Position::new(epoch, seq),
                crc: u32_at(44),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            number: 7,
            history: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
            base: Link {
                position: Position::new(3, 0x0102_0304_0506),
                crc: 0xdead_beef,
            },
        }
    }

    /// Frozen: segments on disk begin like this.
    #[test]
    fn golden_header() {
        let hex: String = header()
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            concat!(
                "4b564c47010000000700000000000000ffeeddccbbaa99887766554433221100",
                "060504030201000003000000efbeadde00000000000000000000000002b0fddc",
            )
        );
        assert_eq!(SegmentHeader::parse(&header().to_bytes()), Ok(header()));
    }

    #[test]
    fn every_bit_of_the_header_matters() {
        for bit in 0..HEADER_USED_BYTES * 8 {
            let mut bytes = header().to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_format_is_named() {
        let mut bytes = header().to_bytes();
        bytes[4] = 9;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        let problem = SegmentHeader::parse(&bytes).expect_err("format 9");
        assert!(problem.contains("format 9"), "{problem}");
    }

    proptest! {
        /// Under a right checksum too, bytes are a header in one way only, or none.
        #[test]
        fn any_bytes_are_a_header_or_refused(mut bytes in any::<[u8; HEADER_USED_BYTES]>(), is_stamped in any::<bool>()) {
            prop_assert!(SegmentHeader::parse(&bytes).is_err());
            if is_stamped {
                bytes[..8].copy_from_slice(&header().to_bytes()[..8]);
            }
            bytes[48..60].fill(0);
            let crc = crc32c::crc32c(&bytes[..60]);
            bytes[60..].copy_from_slice(&crc.to_le_bytes());
            let header = SegmentHeader::parse(&bytes);
            prop_assert_eq!(header.is_ok(), is_stamped);
            if let Ok(header) = header {
                prop_assert_eq!(header.to_bytes(), bytes);
            }
        }
    }
}
