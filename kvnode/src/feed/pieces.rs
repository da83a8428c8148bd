//! Text in pieces: those that are shared with other watchers, and what is this watcher's alone.
//!
//! Invariant: no piece is empty, and all together are the text that was added, in order.

use std::{collections::VecDeque, mem};

use bytes::Bytes;

/// Text of events. Nobody else's pieces are copied.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    whole: VecDeque<Bytes>,
    /// What is added to; behind the others.
    last: Vec<u8>,
}

impl Pieces {
    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.last.is_empty()
    }

    /// The next piece.
    pub fn pop(&mut self) -> Option<Bytes> {
        let last = || Some(Bytes::from(mem::take(&mut self.last)));
        let piece = self.whole.pop_front().or_else(last)?;
        (!piece.is_empty()).then_some(piece)
    }

    /// For text to be added at the end.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.last
    }

    /// Adds a piece that may be shared with others.
    pub(super) fn push(&mut self, piece: Bytes) {
        if !self.last.is_empty() {
            self.whole.push_back(mem::take(&mut self.last).into());
        }
        if !piece.is_empty() {
            self.whole.push_back(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_added_comes_in_order() {
        let mut pieces = Pieces::default();
        assert!(pieces.is_empty() && pieces.pop().is_none());
        pieces.push(Bytes::new());
        assert!(pieces.is_empty());
        pieces.end().extend_from_slice(b"one ");
        pieces.end().extend_from_slice(b"two ");
        pieces.push(Bytes::from_static(b"three "));
        pieces.end().extend_from_slice(b"four");
        for piece in ["one two ", "three ", "four"] {
            assert!(!pieces.is_empty());
            assert_eq!(pieces.pop().unwrap(), piece);
        }
        assert!(pieces.is_empty() && pieces.pop().is_none());
    }
}
