//! Refusals by reason: how often each code of an error was the answer to an op or a request.
//!
//! An absent key is an answer like any other, and refuses nothing: it is counted among the outcomes of ops alone.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use kvclient::wire::error::ErrorCode;

/// Room for more codes than there are.
const ROOM: usize = 64;

/// Counts by code.
#[derive(Debug)]
pub struct Refusals([AtomicU64; ROOM]);

impl Default for Refusals {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::default()))
    }
}

impl Refusals {
    /// Something was answered with this code.
    pub fn add(&self, code: ErrorCode) {
        let at = ErrorCode::all().position(|other| other == code);
        if let Some(count) = at.and_then(|at| self.0.get(at)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Every code of a refusal, with how often it was the answer.
    pub fn each(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        let all = ErrorCode::all().zip(counts);
        all.filter(|(code, _)| *code != ErrorCode::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_count_of_its_own() {
        let refusals = Refusals::default();
        for (at, code) in ErrorCode::all().enumerate() {
            (0..=at).for_each(|_| refusals.add(code));
        }
        let counts: Vec<_> = refusals.each().collect();
        let all = ErrorCode::all().zip(1..);
        let expected: Vec<_> = all
            .filter(|(code, _)| *code != ErrorCode::NotFound)
            .collect();
        assert_eq!(counts, expected);
    }
}
