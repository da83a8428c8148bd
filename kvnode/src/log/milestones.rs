//! Where frames of a segment lie: a few known places, so that a reader need not walk from the start.
//!
//! About one place every 64 KiB, 32 KiB of memory for a segment of 64 MiB. Writer and recovery tell of what they
//! pass; of older segments readers learn as they walk. The start of the newest append is kept as well: a replica
//! at the tail asks for exactly that.

use kvclient::{
    position::Seq,
    wire::log::{FrameHeader, Link},
};

const STEP_BYTES: u64 = 64 << 10;

/// A place between two frames of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Byte of the file at which the next frame begins.
    pub(super) at: u64,
    /// What that frame follows.
    pub(super) link: Link,
}

impl Place {
    /// The place behind the frame that begins here.
    pub(super) fn behind(self, header: &FrameHeader) -> Self {
        Self {
            at: self.at + header.frame_bytes() as u64,
            link: header.link(),
        }
    }

    /// Last seq before this place.
    pub(super) fn seq(self) -> Seq {
        self.link.position.seq
    }
}

/// The known places of one segment.
#[derive(Debug)]
pub(super) struct Milestones {
    // Never empty: the first is the segment's start.
    places: Vec<Place>,
    newest: Place,
    end: Place,
}

impl Milestones {
    /// Knows the start only.
    pub(super) fn new(start: Place) -> Self {
        Self {
            places: vec![start],
            newest: start,
            end: start,
        }
    }

    /// Tells that a frame ends at `place`. Frames must be told of in order, without leaving one out; a second
    /// telling changes nothing.
    pub(super) fn pass(&mut self, place: Place) {
        if place.at <= self.end.at {
            return;
        }
        self.end = place;
        let last = self.places.last().map_or(0, |last| last.at);
        if place.at - last >= STEP_BYTES {
            self.places.push(place);
        }
    }

    /// Tells where the newest append begins.
    pub(super) fn set_newest(&mut self, place: Place) {
        self.newest = place;
    }

    /// Up to where all frames were told of.
    pub(super) fn end(&self) -> Place {
        self.end
    }

    /// The last known place whose seq is not above `seq`.
    pub(super) fn before(&self, seq: Seq) -> Place {
        let below = self.places.partition_point(|place| place.seq() <= seq);
        let milestone = self.places[below.saturating_sub(1)];
        [self.end, self.newest]
            .into_iter()
            .find(|place| place.seq() <= seq && place.at > milestone.at)
            .unwrap_or(milestone)
    }
}

#[cfg(test)]
mod tests {
    use kvclient::position::Position;

    use super::*;

    fn place(at: u64, seq: Seq) -> Place {
        let position = Position::new(1, seq);
        Place {
            at,
            link: Link { position, crc: 0 },
        }
    }

    #[test]
    fn finds_the_nearest_known_place() {
        let mut milestones = Milestones::new(place(0, 100));
        for n in 1..=30 {
            milestones.pass(place(n * 10_000, 100 + n));
        }
        milestones.set_newest(place(290_000, 129));
        for (seq, at) in [
            (100, 0),
            (106, 0),
            (107, 70_000),
            (113, 70_000),
            (114, 140_000),
            (128, 280_000),
            (129, 290_000),
            (130, 300_000),
            (999, 300_000),
        ] {
            assert_eq!(milestones.before(seq).at, at, "seq {seq}");
        }
        milestones.pass(place(10_000, 101));
        assert_eq!(milestones.end(), place(300_000, 130), "told twice");
    }
}
