//! The history of one key: what was asked and what was answered, in the order in which it came about.
//!
//! A call is noted before anything is sent and its answer after it was read, so an op took place somewhere between
//! the two notes, or, if nobody can say what became of it, anywhere behind the first: such an op is open to the end.
//! What surely was not done is left out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use todc_utils::{Action, History as CheckedHistory, WGLChecker};

use super::register::{Asked, Register, Step, Told};

/// What the checker may take for one history. Most take a millisecond.
const CHECK_WITHIN: Duration = Duration::from_secs(20);

/// How an op ended for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Told(Told),
    /// Refused, or never sent.
    NotApplied,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Called(usize),
    Ended(usize),
}

/// One key's history, while it comes about.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<History>);

/// One key's history.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    events: Vec<Event>,
    asked: Vec<Asked>,
    ended: BTreeMap<usize, Ended>,
}

/// What the checker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    Linearizable,
    Not,
    /// It came to no end in time.
    Undecided,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call that is about to be sent; its number.
    pub(super) fn called(&self, asked: Asked) -> usize {
        let mut history = self.lock();
        let op = history.asked.len();
        history.asked.push(asked);
        history.events.push(Event::Called(op));
        op
    }

    /// Notes how it ended.
    pub(super) fn ended(&self, op: usize, ended: Ended) {
        let mut history = self.lock();
        history.ended.insert(op, ended);
        history.events.push(Event::Ended(op));
    }

    /// Ops that were answered so far.
    pub(super) fn answered(&self) -> usize {
        self.lock().answered()
    }

    /// All of it; nobody is at work on it any more.
    pub(super) fn into_history(self) -> History {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    pub(super) fn answered(&self) -> usize {
        let told = |ended: &&Ended| matches!(ended, Ended::Told(told) if *told != Told::Unknown);
        self.ended.values().filter(told).count()
    }

    /// Writes of unknown outcome, and how many of them somebody saw later.
    pub(super) fn unknown(&self) -> (usize, usize) {
        let unknown = self.steps().filter(|(_, step)| step.told == Told::Unknown);
        let pinned = self.pinned();
        let open = unknown.count();
        let still = pinned.values().filter(|step| step.told == Told::Unknown);
        (open, open - still.count())
    }

    /// Writes that were acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        let acked = |told| matches!(told, Told::Done { .. } | Told::Counted { .. });
        self.steps().filter(|(_, step)| acked(step.told)).count()
    }

    /// Every op that may have been done, with its answer.
    fn steps(&self) -> impl Iterator<Item = (usize, Step)> {
        let step = |(op, asked): (usize, &Asked)| {
            let told = match self.ended.get(&op) {
                Some(Ended::NotApplied) => return None,
                Some(Ended::Told(told)) => *told,
                None => Told::Unknown,
            };
            let asked = *asked;
            // A read that was not answered did nothing.
            let counts = told != Told::Unknown || asked != Asked::Get;
            counts.then_some((op, Step { asked, told }))
        };
        self.asked.iter().enumerate().filter_map(step)
    }

    /// The same, but what somebody saw is known to be done, and where: no two puts have the same value.
    fn pinned(&self) -> BTreeMap<usize, Step> {
        let mut seen = BTreeMap::new();
        for (_, step) in self.steps() {
            if let Told::Found { value, at } = step.told {
                seen.insert(value, at);
            }
        }
        let pin = |(op, mut step): (usize, Step)| {
            if let (Asked::Put { value, .. }, Told::Unknown) = (step.asked, step.told)
                && let Some(at) = seen.get(&value)
            {
                step.told = Told::Done { at: Some(*at) };
            }
            (op, step)
        };
        self.steps().map(pin).collect()
    }

    /// As the checker wants it: each op as a process of its own; open ones end behind all others.
    fn for_checker(&self) -> CheckedHistory<Step> {
        let steps = self.pinned();
        let mut actions = Vec::with_capacity(2 * steps.len());
        let mut open = steps.clone();
        for event in &self.events {
            let (Event::Called(op) | Event::Ended(op)) = *event;
            let Some(step) = steps.get(&op) else {
                continue;
            };
            match event {
                Event::Called(_) => actions.push((op, Action::Call(*step))),
                Event::Ended(_) if self.is_open(op) => {}
                Event::Ended(_) => {
                    open.remove(&op);
                    actions.push((op, Action::Response(*step)));
                }
            }
        }
        actions.extend(
            open.into_iter()
                .map(|(op, step)| (op, Action::Response(step))),
        );
        CheckedHistory::from_actions(actions)
    }

    fn is_open(&self, op: usize) -> bool {
        matches!(self.ended.get(&op), None | Some(Ended::Told(Told::Unknown)))
    }

    /// Whether there is an order of its ops that fits the rule and the times; and how long that took to find out.
    pub(super) fn check(&self) -> (Checked, Duration) {
        let began = Instant::now();
        let history = self.for_checker();
        let (say, hear) = mpsc::channel();
        thread::spawn(move || {
            // Nobody may listen any more.
            let _ = say.send(WGLChecker::<Register>::is_linearizable(history));
        });
        let checked = match hear.recv_timeout(CHECK_WITHIN) {
            Ok(true) => Checked::Linearizable,
            Ok(false) => Checked::Not,
            Err(_) => Checked::Undecided,
        };
        (checked, began.elapsed())
    }

    /// The same history with one stale read: one that began after a newer entry was told of brings an older one.
    /// `None` if there is no place for it.
    pub(super) fn with_stale_read(&self) -> Option<Self> {
        // What was told before each call, newest last.
        let mut told = Vec::new();
        let mut before = BTreeMap::new();
        for event in &self.events {
            match *event {
                Event::Called(op) => _ = before.insert(op, told.len()),
                Event::Ended(op) => {
                    if let Some(Ended::Told(Told::Found { value, at })) = self.ended.get(&op) {
                        told.push((*at, *value));
                    }
                }
            }
        }
        let stale = |(op, known): (&usize, &usize)| {
            let newest = told[..*known].iter().max()?;
            let older = told[..*known].iter().filter(|seen| *seen < newest).max()?;
            let is_read = matches!(self.ended.get(op), Some(Ended::Told(Told::Found { .. })));
            is_read.then_some((*op, *older))
        };
        let (op, (at, value)) = before.iter().filter_map(stale).next_back()?;
        let mut planted = self.clone();
        let read = Ended::Told(Told::Found { value, at });
        planted.ended.insert(op, read);
        Some(planted)
    }

    /// A line per event, for whoever has to find out what went wrong.
    pub(super) fn told_at_length(&self) -> String {
        let line = |event: &Event| match *event {
            Event::Called(op) => format!("{op:4} asks {:?}\n", self.asked[op]),
            Event::Ended(op) => format!("{op:4} gets {:?}\n", self.ended[&op]),
        };
        self.events.iter().map(line).collect()
    }
}
