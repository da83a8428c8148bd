//! What one look at the log has found: events as text, each made once, one behind the other.
//!
//! Who wants some of them is given where they are; who wants all of them shares one copy with all others who do.

use std::cell::OnceCell;

use bytes::Bytes;
use kvclient::position::Position;

/// The most text that room is kept for between two looks.
const KEPT_BYTES: usize = 512 << 10;

/// Events of a piece of the log, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    count: usize,
    shared: OnceCell<Bytes>,
}

/// Where one event is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    position: Position,
    begin: usize,
    end: usize,
}

impl Batch {
    /// Adds what `write` appends; nothing is no event.
    pub(super) fn push(
        &mut self,
        position: Position,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Span> {
        let begin = self.text.len();
        write(&mut self.text);
        let end = self.text.len();
        let span = Span {
            position,
            begin,
            end,
        };
        (end > begin).then(|| {
            self.count += 1;
            span
        })
    }

    /// Forgets them all. The next find room made already.
    pub(super) fn clear(&mut self) {
        if self.text.capacity() > KEPT_BYTES {
            self.text = Vec::new();
        }
        self.text.clear();
        self.count = 0;
        self.shared.take();
    }

    /// Those of the spans that are behind a position.
    pub(super) fn behind(spans: &[Span], at: Position) -> &[Span] {
        let known = spans.partition_point(|span| span.position.seq <= at.seq);
        &spans[known..]
    }

    /// How much text these are.
    pub(super) fn bytes(&self, spans: &[Span]) -> usize {
        match self.is_all(spans) {
            true => self.text.len(),
            false => spans.iter().map(|span| span.end - span.begin).sum(),
        }
    }

    /// Text of each of these.
    pub(super) fn texts(&self, spans: &[Span]) -> impl Iterator<Item = &[u8]> {
        spans.iter().map(|span| &self.text[span.begin..span.end])
    }

    /// The text that is shared, if these are all events and it is worth it.
    pub(super) fn shared(&self, spans: &[Span], worth_bytes: usize) -> Option<Bytes> {
        let is_worth_it = self.is_all(spans) && self.text.len() >= worth_bytes;
        is_worth_it.then(|| {
            let copy = || Bytes::copy_from_slice(&self.text);
            self.shared.get_or_init(copy).clone()
        })
    }

    /// Spans are of different events, so as many as there are events are all of them.
    fn is_all(&self, spans: &[Span]) -> bool {
        spans.len() == self.count
    }
}

impl Span {
    pub(super) fn position(&self) -> Position {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(batch: &Batch, spans: &[Span]) -> Vec<u8> {
        let text: Vec<u8> = batch.texts(spans).flatten().copied().collect();
        assert_eq!(batch.bytes(spans), text.len());
        text
    }

    #[test]
    fn gives_what_is_behind_a_position() {
        let mut batch = Batch::default();
        let mut spans = Vec::new();
        for (seq, text) in [(3, "three "), (4, "four "), (5, ""), (7, "seven ")] {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
            spans.extend(batch.push(Position::new(1, seq), write));
        }
        for (at, wanted) in [
            (0, "three four seven "),
            (2, "three four seven "),
            (3, "four seven "),
            (5, "seven "),
            (7, ""),
            (9, ""),
        ] {
            let behind = Batch::behind(&spans, Position::new(1, at));
            assert_eq!(text(&batch, behind), wanted.as_bytes(), "{at}");
            let shared = batch.shared(behind, 5).map(|text| text.len());
            assert_eq!(shared, (at < 3).then_some(wanted.len()), "{at}");
        }
        assert_eq!(spans.last().unwrap().position(), Position::new(1, 7));
        assert!(batch.shared(&spans, 18).is_none());
        batch.clear();
        let write = |out: &mut Vec<u8>| out.extend_from_slice(b"nine");
        let spans = [batch.push(Position::new(1, 9), write).unwrap()];
        assert_eq!(text(&batch, &spans), b"nine");
        assert_eq!(batch.shared(&spans, 0).unwrap(), "nine");
    }
}
