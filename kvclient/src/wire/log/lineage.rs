//! A lineage as text for a handshake, and as bytes for disk and snapshots.

use crate::{
    position::{Lineage, Reign},
    wire::bytes::{DecodeError, Reader, put_len},
};

/// Most reigns that a handshake names; more would not fit in a request's head.
pub const LINEAGE_TEXT_REIGNS: usize = 64;

/// The newest reigns of a lineage as text for a header: `epoch.first_seq.reign_id` (the id as hex), comma-separated,
/// oldest first.
pub fn lineage_to_text(lineage: &Lineage) -> String {
    let reigns = lineage.reigns();
    let newest = &reigns[reigns.len().saturating_sub(LINEAGE_TEXT_REIGNS)..];
    let texts: Vec<String> = newest
        .iter()
        .map(|r| format!("{}.{}.{:x}", r.epoch, r.first_seq, r.reign_id))
        .collect();
    texts.join(",")
}

/// Reads what [`lineage_to_text`] wrote.
///
/// # Errors
/// [`DecodeError`] if it is something else.
pub fn lineage_from_text(text: &str) -> Result<Lineage, DecodeError> {
    let mut lineage = Lineage::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let mut parts = item.splitn(3, '.');
        let mut part = || parts.next().unwrap_or_default();
        let reign = (|| {
            let (epoch, first_seq, reign_id) = (part(), part(), part());
            Some(Reign {
                epoch: epoch.parse().ok()?,
                first_seq: first_seq.parse().ok()?,
                reign_id: u64::from_str_radix(reign_id, 16).ok()?,
            })
        })();
        let reign =
            reign.ok_or_else(|| DecodeError::new("lineage", format!("{item:?} is not a reign")))?;
        lineage
            .push(reign)
            .map_err(|error| DecodeError::new("lineage", error.to_string()))?;
    }
    Ok(lineage)
}

/// The whole lineage as bytes: count u32, then per reign epoch u32, first seq u64, reign id u64.
pub fn encode_lineage(lineage: &Lineage, out: &mut Vec<u8>) {
    put_len(out, lineage.reigns().len());
    for reign in lineage.reigns() {
        out.extend_from_slice(&reign.epoch.to_le_bytes());
        out.extend_from_slice(&reign.first_seq.to_le_bytes());
        out.extend_from_slice(&reign.reign_id.to_le_bytes());
    }
}

/// Reads what [`encode_lineage`] wrote.
///
/// # Errors
/// [`DecodeError`] if it is something else.
pub fn decode_lineage(reader: &mut Reader) -> Result<Lineage, DecodeError> {
    let mut lineage = Lineage::new();
    for _ in 0..reader.u32("number of reigns")? {
        let reign = Reign {
            epoch: reader.u32("epoch")?,
            first_seq: reader.u64("first seq")?,
            reign_id: reader.u64("reign id")?,
        };
        lineage
            .push(reign)
            .map_err(|error| reader.error(error.to_string()))?;
    }
    Ok(lineage)
}
