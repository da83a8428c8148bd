//! Events that go to several watchers at once: their text, made once, and where each ends.

use kvclient::position::Position;

/// The most text that room is kept for: a few events of most prefixes.
const KEPT_BYTES: usize = 4 << 10;

/// Events of one prefix, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    /// Position of each event, and where its text ends.
    ends: Vec<(Position, usize)>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds the next event.
    pub(super) fn push(&mut self, position: Position, event: &[u8]) {
        self.text.extend_from_slice(event);
        self.ends.push((position, self.text.len()));
    }

    /// Forgets them all. The next few find room made already.
    pub(super) fn clear(&mut self) {
        if self.text.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
        self.text.clear();
        self.ends.clear();
    }

    /// Position of the last event.
    pub(super) fn last(&self) -> Position {
        self.ends.last().map_or(Position::ZERO, |(last, _)| *last)
    }

    /// Text of the events behind a position.
    pub(super) fn behind(&self, at: Position) -> &[u8] {
        let known = self
            .ends
            .partition_point(|(position, _)| position.seq <= at.seq);
        let begin = known.checked_sub(1).map_or(0, |nth| self.ends[nth].1);
        &self.text[begin..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_is_behind_a_position() {
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        for (seq, text) in [(3, "three "), (4, "four "), (7, "seven ")] {
            batch.push(Position::new(1, seq), text.as_bytes());
        }
        for (at, text) in [
            (0, "three four seven "),
            (2, "three four seven "),
            (3, "four seven "),
            (5, "seven "),
            (7, ""),
            (9, ""),
        ] {
            assert_eq!(batch.behind(Position::new(1, at)), text.as_bytes(), "{at}");
        }
        assert_eq!(batch.last(), Position::new(1, 7));
        batch.clear();
        assert!(batch.is_empty() && batch.behind(Position::ZERO).is_empty());
    }
}
