//! Random histories of a log against a plain list of frames.

use proptest::prelude::*;

use super::*;

/// What happens to a log.
#[derive(Debug, Clone)]
enum Step {
    /// So many frames in one append, with values of this size.
    Append { frames: usize, value_bytes: usize },
    /// The program is stopped and started.
    Restart,
    /// A power cut in the middle of an append: a bit of each frame in the set is wrong, others arrived.
    PowerCut { frames: usize, broken: u8 },
    /// LMDB flushes and lets go.
    Release,
}

fn any_step() -> impl Strategy<Value = Step> {
    let value_bytes = prop_oneof![1..200_usize, 1_000..4_000_usize];
    prop_oneof![
        6 => (1..6_usize, value_bytes).prop_map(|(frames, value_bytes)| Step::Append { frames, value_bytes }),
        1 => Just(Step::Restart),
        2 => (1..5_usize, 1..32_u8).prop_map(|(frames, broken)| Step::PowerCut { frames, broken }),
        1 => Just(Step::Release),
    ]
}

struct Model {
    dir: tempfile::TempDir,
    opened: Option<Opened>,
    frames: Vec<Frame>,
    applied: Position,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        drop(create(dir.path()));
        Self {
            opened: Some(reopen(dir.path())),
            dir,
            frames: Vec::new(),
            applied: Position::ZERO,
        }
    }

    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append {
                frames,
                value_bytes,
            } => {
                let more = chain(self.opened().writer.end(), frames, value_bytes);
                self.opened().writer.append_synced(&more).unwrap();
                self.frames.extend(more);
            }
            Step::Restart => self.restart(),
            Step::PowerCut { frames, broken } => self.power_cut(frames, broken),
            Step::Release => {
                let applied = self.opened().log.durable();
                self.opened().log.release(applied.seq).unwrap();
                self.applied = applied;
            }
        }
    }

    fn power_cut(&mut self, frames: usize, broken: u8) {
        let more = chain(self.opened().writer.end(), frames, 30);
        let broken: Vec<usize> = (0..frames).filter(|nth| broken >> nth & 1 == 1).collect();
        self.opened().writer.append_synced(&more).unwrap();
        let last = self
            .opened()
            .log
            .shared
            .state()
            .segments
            .back()
            .unwrap()
            .clone();
        let file = std::fs::read(&last.path).unwrap();
        let find = |frame: &Frame| {
            file.windows(frame.bytes.len())
                .position(|w| w == frame.bytes)
        };
        // Frames that went to the segment before were synced before this one was begun: they cannot break.
        let places: Vec<_> = broken
            .iter()
            .filter_map(|&nth| Some((nth, find(&more[nth])?)))
            .collect();
        for (nth, at) in &places {
            flip(&last.path, *at as u64 + 7 * *nth as u64);
        }
        let kept = places.first().map_or(frames, |(nth, _)| *nth);
        self.frames.extend_from_slice(&more[..kept]);
        self.restart();
    }

    fn restart(&mut self) {
        self.opened = None;
        let floor = self.applied;
        let opened = open(self.dir.path(), self.applied, floor).unwrap();
        let replayed: Vec<_> = self
            .frames
            .iter()
            .filter(|f| f.header.last_seq() > floor.seq)
            .cloned()
            .collect();
        assert_eq!(opened.replayed, replayed);
        self.opened = Some(opened);
    }

    fn check(&mut self) {
        let truncated = self.opened().log.truncated();
        let read = read_all(&self.opened().log, truncated, 5_000);
        let expected: Vec<_> = self
            .frames
            .iter()
            .filter(|f| f.header.first_seq > truncated)
            .cloned()
            .collect();
        assert_eq!(read, expected);
        assert!(truncated <= self.applied.seq);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_list_of_frames(steps in proptest::collection::vec(any_step(), 1..20)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            model.check();
        }
        model.restart();
        model.check();
    }
}
