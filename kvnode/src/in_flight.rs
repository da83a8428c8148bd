//! Bytes held by all requests together, of bodies or of answers that nobody has taken yet: counted, and bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The count. One per node.
#[derive(Debug, Default)]
pub struct InFlight {
    bytes: AtomicUsize,
}

/// One request's share of it, given back on drop.
#[derive(Debug)]
pub struct Held<'a> {
    in_flight: &'a InFlight,
    bytes: usize,
}

/// All requests together hold more than they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverLimit;

impl InFlight {
    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that are to be given back with [`Self::give_back`].
    ///
    /// # Errors
    /// [`OverLimit`] if all together are more than `limit` bytes now. They count all the same.
    pub fn take(&self, bytes: usize, limit: usize) -> Result<(), OverLimit> {
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > limit { Err(OverLimit) } else { Ok(()) }
    }

    /// Counts bytes no longer that were taken.
    pub fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A share of nothing yet.
    pub fn hold(&self) -> Held<'_> {
        Held {
            in_flight: self,
            bytes: 0,
        }
    }
}

impl Held<'_> {
    /// Adds to the share.
    ///
    /// # Errors
    /// [`OverLimit`] if all shares together are more than `limit` bytes now: give this one up.
    pub fn grow(&mut self, bytes: usize, limit: usize) -> Result<(), OverLimit> {
        self.bytes += bytes;
        self.in_flight.take(bytes, limit)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.in_flight.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_bounded_and_given_back() {
        let in_flight = InFlight::default();
        let mut one = in_flight.hold();
        let mut other = in_flight.hold();
        assert_eq!(one.grow(6, 10), Ok(()));
        assert_eq!(other.grow(4, 10), Ok(()));
        assert_eq!(other.grow(1, 10), Err(OverLimit));
        assert_eq!(in_flight.bytes(), 11);
        drop(other);
        assert_eq!(in_flight.bytes(), 6);
        drop(one);
        assert_eq!(in_flight.bytes(), 0);
    }
}
