//! Identities of writes, so that a shard does a write once however often it is sent.
//!
//! A write keeps its id over all its attempts. With it goes the floor: the lowest id this client still waits for,
//! below which the shard may forget. A write that hangs holds the floor, so ids are drawn from several sources, by
//! shard: what waits for one shard does not make the others remember.

use std::{
    collections::VecDeque,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::wire::batch::RequestId;

/// More sources than most clusters have shards. Two shards that share one only remember a little longer.
const SOURCES: usize = 16;

/// All ids of a client and its clones.
pub(crate) struct RequestIds {
    sources: [Source; SOURCES],
}

/// Ids of one random client id: 1, 2, 3 ...
struct Source {
    client: u128,
    /// Std lock: never held over an await, and for a few moves only.
    open: Mutex<Open>,
}

/// The ids from `first` on, and whether each is still waited for.
struct Open {
    first: u64,
    waits: VecDeque<bool>,
}

/// An id that a write holds for as long as its caller waits.
pub(crate) struct HeldId<'a> {
    source: &'a Source,
    n: u64,
    /// As it was when the id was drawn: a repeat may let the shard remember more than it must.
    floor: u64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self {
            sources: std::array::from_fn(|_| Source {
                client: random(),
                open: Mutex::new(Open {
                    // 0 as a floor means that there is none.
                    first: 1,
                    waits: VecDeque::new(),
                }),
            }),
        }
    }

    /// The id of the next write to a shard.
    pub(crate) fn next(&self, shard_idx: u16) -> HeldId<'_> {
        let source = &self.sources[usize::from(shard_idx) % SOURCES];
        let mut open = source.lock();
        let n = open.first + open.waits.len() as u64;
        open.waits.push_back(true);
        HeldId {
            source,
            n,
            floor: open.first,
        }
    }
}

impl Source {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldId<'_> {
    /// The id as it travels now.
    pub(crate) fn get(&self) -> RequestId {
        RequestId {
            client: self.source.client,
            n: self.n,
            floor: self.floor,
        }
    }
}

impl Drop for HeldId<'_> {
    fn drop(&mut self) {
        let mut open = self.source.lock();
        let place = usize::try_from(self.n - open.first).ok();
        if let Some(waits) = place.and_then(|place| open.waits.get_mut(place)) {
            *waits = false;
        }
        while open.waits.front() == Some(&false) {
            open.waits.pop_front();
            open.first += 1;
        }
    }
}

/// Bits that no other process has. Not of `fastrand`: a program may set its seed, and with it draw the same ids in each
/// run, whose writes a shard then takes for repeats of the run before.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

impl fmt::Debug for RequestIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestIds")
    }
}

impl fmt::Debug for HeldId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldId({})", self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_lowest_id_that_somebody_waits_for() {
        let ids = RequestIds::new();
        let (one, two, three) = (ids.next(0), ids.next(0), ids.next(0));
        let numbers = |id: &HeldId<'_>| (id.get().n, id.get().floor);
        assert_eq!((numbers(&one), numbers(&three)), ((1, 1), (3, 1)));
        drop(two);
        assert_eq!(numbers(&ids.next(0)), (4, 1));
        drop(one);
        assert_eq!(numbers(&ids.next(0)), (5, 3));
        drop(three);
        assert_eq!(numbers(&ids.next(0)), (6, 6));
    }

    #[test]
    fn shards_do_not_hold_each_other_s_floor() {
        let ids = RequestIds::new();
        let stuck = ids.next(0);
        (0..100).for_each(|_| drop(ids.next(1)));
        let id = ids.next(1).get();
        assert_eq!((id.n, id.floor), (101, 101));
        assert_ne!(id.client, stuck.get().client);
    }

    /// The second run of a program that seeds `fastrand` had the ids of the first: an increment was answered with what the
    /// first run's was, and not done.
    #[test]
    fn a_program_that_sets_a_seed_has_ids_of_its_own() {
        let client = || {
            fastrand::seed(7);
            RequestIds::new().next(0).get().client
        };
        assert_ne!(client(), client());
    }
}
