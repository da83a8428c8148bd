//! Carries out ops: one by one, or many at once.
//!
//! A [`Walk`] is the whole life of one op: it makes attempts (`course`) and recovers from those that fail (`recover`).
//! Decisions are taken in `plan` and `policy`; the order of events is all that is decided here. `steps` lets many ops
//! leave together.
//!
//! Cancel safety: an op may be dropped at any await. If its write was sent, it may be applied.

mod attempt;
mod course;
mod recover;
mod steps;
mod walk;

pub(crate) use self::walk::Walk;
use crate::{
    error::Error,
    intent::Intent,
    router::Router,
    wire::batch::{Op, OpResult},
};

impl Router {
    /// Plans one op, whose first attempt leaves when it is [run](Walk::run).
    pub(crate) fn plan<'a>(&'a self, intent: Intent<'a>, op: Op) -> Result<Walk<'a>, Error> {
        Walk::new(self, intent, op)
    }

    /// Carries out many ops at once, one result per op in order. Those for one node leave in one batch; only
    /// those that failed are tried again. Writes to one key are made one after the other.
    pub(crate) async fn run_many<'a>(
        &'a self,
        intents: Vec<Result<(Intent<'a>, Op), Error>>,
    ) -> Vec<Result<OpResult, Error>> {
        steps::run(self, intents).await
    }
}
