//! Refusals by reason: how often each code of an error was the answer to an op or a request.

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
    /// Something was refused with this code.
    pub fn add(&self, code: ErrorCode) {
        let at = ErrorCode::all().position(|other| other == code);
        if let Some(count) = at.and_then(|at| self.0.get(at)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Every code, with how often it was the answer.
    pub fn each(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        ErrorCode::all().zip(self.0.iter().map(|count| count.load(Relaxed)))
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
        let counts: Vec<u64> = refusals.each().map(|(_, count)| count).collect();
        let expected: Vec<u64> = (1..).take(ErrorCode::all().count()).collect();
        assert_eq!(counts, expected);
    }
}
