//! What a store knows about itself: the table `meta`.
//!
//! Three rows, little-endian, each ending in the CRC32C of all bytes before it. `identity` is written once. `state` and
//! `sums` are written with every flush, in its transaction; a store without them is an unfinished copy.
//!
//! ```text
//! identity                            state                                sums
//!  0   4  format, STORE_FORMAT         0  4  epoch of applied               0  8  count of range 0
//!  4  16  history id                   4  8  seq of applied                 8  8  sum of range 0
//! 20   4  crc                         12  4  header CRC of its frame          ... 64 ranges
//!                                     16  8  shard time there, Unix ms   1024  4  crc
//!                                     24  4  epoch of durable_floor
//!                                     28  8  seq of durable_floor
//!                                     36  4  number of reigns
//!                                     40  -  per reign: epoch u32, first seq u64, reign id u64
//!                                      -  4  crc
//! ```

use bytes::Bytes;
use heed::{RoTxn, RwTxn};
use kvclient::{
    position::{Lineage, Position},
    wire::{
        bytes::{DecodeError, Reader, put_position},
        log::{Link, decode_lineage, encode_lineage},
    },
};

use super::{
    env::Env,
    error::StoreError,
    sums::{SUMS_BYTES, Sums},
};

/// Names the layouts of all tables. It grows with any change of them.
pub const STORE_FORMAT: u32 = 1;

const IDENTITY: &[u8] = b"identity";
const STATE: &[u8] = b"state";
const SUMS: &[u8] = b"sums";

/// Where a store stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Position and frame CRC up to which the log is contained in LMDB.
    pub applied: Link,
    /// Shard time there, Unix milliseconds: that of the frame that ends there, or that at which it was copied.
    pub time_ms: u64,
    /// The log reached this position once; one that ends below it has lost acknowledged writes.
    pub durable_floor: Position,
    /// All reigns up to `applied`.
    pub lineage: Lineage,
    /// Counts and sums of the entries at `applied`.
    pub sums: Sums,
}

impl Meta {
    fn state_row(&self) -> Vec<u8> {
        let mut row = Vec::new();
        put_position(&mut row, self.applied.position);
        row.extend_from_slice(&self.applied.crc.to_le_bytes());
        row.extend_from_slice(&self.time_ms.to_le_bytes());
        put_position(&mut row, self.durable_floor);
        encode_lineage(&self.lineage, &mut row);
        sealed(row)
    }

    /// Puts `state` and `sums` into a transaction.
    pub(super) fn write(&self, env: &Env, txn: &mut RwTxn) -> Result<(), StoreError> {
        env.meta.put(txn, STATE, &self.state_row())?;
        let sums = sealed(self.sums.to_bytes().to_vec());
        Ok(env.meta.put(txn, SUMS, &sums)?)
    }

    /// Reads `state` and `sums`.
    ///
    /// # Errors
    /// `Refused`: they are not there, since a copy was not finished.
    pub(super) fn read(env: &Env, txn: &RoTxn) -> Result<Self, StoreError> {
        let missing = || StoreError::Refused("it is a copy that was never finished".into());
        let state = row(env, txn, STATE)?.ok_or_else(missing)?;
        let sums = row(env, txn, SUMS)?.ok_or_else(missing)?;
        let sums = <&[u8; SUMS_BYTES]>::try_from(&sums[..])
            .map_err(|_| StoreError::damaged_row("meta row sums", "its length is wrong"))?;
        let sums = Sums::from_bytes(sums);
        decode_state(state, sums).map_err(|error| StoreError::damaged_row("meta row state", error))
    }
}

fn decode_state(state: Bytes, sums: Sums) -> Result<Meta, DecodeError> {
    let mut reader = Reader::new("meta row state", state);
    let applied = Link {
        position: reader.position("applied")?,
        crc: reader.u32("frame crc")?,
    };
    let meta = Meta {
        applied,
        time_ms: reader.u64("time")?,
        durable_floor: reader.position("durable floor")?,
        lineage: decode_lineage(&mut reader)?,
        sums,
    };
    reader.end()?;
    Ok(meta)
}

/// The history that an environment belongs to; `None` if it is new.
///
/// # Errors
/// `Refused`: written by another version.
pub(super) fn read_history(env: &Env, txn: &RoTxn) -> Result<Option<u128>, StoreError> {
    let Some(identity) = row(env, txn, IDENTITY)? else {
        return Ok(None);
    };
    let decode = || {
        let mut reader = Reader::new("meta row identity", identity);
        let fields = (reader.u32("format")?, reader.u128("history")?);
        reader.end().map(|()| fields)
    };
    let (format, history) =
        decode().map_err(|error| StoreError::damaged_row("meta row identity", error))?;
    if format != STORE_FORMAT {
        return Err(StoreError::Refused(format!(
            "it has format {format}, this version reads format {STORE_FORMAT}"
        )));
    }
    Ok(Some(history))
}

/// Marks an environment as belonging to a history.
pub(super) fn write_history(env: &Env, txn: &mut RwTxn, history: u128) -> Result<(), StoreError> {
    Ok(env.meta.put(txn, IDENTITY, &identity_row(history))?)
}

fn identity_row(history: u128) -> Vec<u8> {
    let mut row = STORE_FORMAT.to_le_bytes().to_vec();
    row.extend_from_slice(&history.to_le_bytes());
    sealed(row)
}

/// A row with its CRC behind it.
fn sealed(mut row: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&row);
    row.extend_from_slice(&crc.to_le_bytes());
    row
}

/// A row without its CRC, which is checked.
fn row(env: &Env, txn: &RoTxn, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let Some(stored) = env.meta.get(txn, name)? else {
        return Ok(None);
    };
    let intact = stored
        .split_last_chunk::<4>()
        .filter(|(row, crc)| crc32c::crc32c(row) == u32::from_le_bytes(**crc));
    let (row, _) = intact.ok_or_else(|| {
        let what = format!("meta row {}", name.escape_ascii());
        StoreError::damaged_row(what, "its checksum is wrong")
    })?;
    Ok(Some(Bytes::copy_from_slice(row)))
}

#[cfg(test)]
mod tests {
    use kvclient::position::Reign;
    use proptest::prelude::*;

    use super::*;

    fn meta() -> Meta {
        let mut lineage = Lineage::new();
        let reign = Reign {
            epoch: 1,
            first_seq: 1,
            reign_id: 7,
        };
        lineage.push(reign).unwrap();
        let mut sums = Sums::default();
        sums.add(b"user:1", 5);
        Meta {
            applied: Link {
                position: Position::new(1, 41),
                crc: 0xdead_beef,
            },
            time_ms: 1_700_000_000_000,
            durable_floor: Position::new(1, 42),
            lineage,
            sums,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Frozen: rows on disk look like this.
    #[test]
    fn golden_rows() {
        assert_eq!(hex(&identity_row(1)), GOLDEN_IDENTITY);
        assert_eq!(hex(&meta().state_row()), GOLDEN_STATE);
    }

    const GOLDEN_IDENTITY: &str = "01000000010000000000000000000000000000007dac8a79";
    const GOLDEN_STATE: &str = concat!(
        "010000002900000000000000efbeadde0068e5cf8b010000010000002a0000000000000001000000",
        "010000000100000000000000070000000000000061330372",
    );

    #[test]
    fn rows_come_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(dir.path(), 1 << 20, 10).unwrap();
        let mut txn = env.write().unwrap();
        assert!(matches!(
            Meta::read(&env, &txn),
            Err(StoreError::Refused(_))
        ));
        assert_eq!(read_history(&env, &txn), Ok(None));
        write_history(&env, &mut txn, 9).unwrap();
        meta().write(&env, &mut txn).unwrap();
        assert_eq!(read_history(&env, &txn), Ok(Some(9)));
        assert_eq!(Meta::read(&env, &txn), Ok(meta()));
        let mut row = meta().state_row();
        row[4] ^= 1;
        env.meta.put(&mut txn, STATE, &row).unwrap();
        assert!(matches!(
            Meta::read(&env, &txn),
            Err(StoreError::Damaged { .. })
        ));
        let newer = sealed([&2_u32.to_le_bytes()[..], &[0; 16]].concat());
        env.meta.put(&mut txn, IDENTITY, &newer).unwrap();
        assert!(matches!(
            read_history(&env, &txn),
            Err(StoreError::Refused(_))
        ));
    }

    proptest! {
        /// A row that says it has more reigns than it has bytes is refused; one that is read is written the same.
        #[test]
        fn any_state_is_read_or_refused(mut row in prop::collection::vec(any::<u8>(), 0..120), reigns in 0..4_u32) {
            let read = |row: &[u8]| decode_state(Bytes::copy_from_slice(row), Sums::default());
            let _ = read(&row);
            if row.len() >= 40 {
                row[36..40].copy_from_slice(&reigns.to_le_bytes());
                row.truncate(40 + reigns as usize * 20);
            }
            if let Ok(meta) = read(&row) {
                prop_assert_eq!(meta.state_row(), sealed(row));
            }
        }
    }
}
