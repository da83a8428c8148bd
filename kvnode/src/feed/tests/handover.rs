//! Every order of writing, feeding, joining, taking and leaving: a watcher that comes and goes between its own reading
//! and being fed has exactly what it must have after each of its steps.

use std::sync::Arc;

use bytes::Bytes;
use kvclient::position::{Position, Seq};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::{Shard, seqs};
use crate::feed::{follow::Follow, hub::Hub, queue::Room};

/// What happens next. Numbers choose among what is there.
#[derive(Debug, Clone)]
enum Deed {
    /// A frame that puts these keys.
    Append(Vec<Bytes>),
    /// Readers see what is durable.
    Publish,
    /// The hub looks at the next piece.
    Look,
    /// Somebody watches a prefix, from behind the position that is so many thousandths of the way to the end.
    Begin(Bytes, u64),
    /// A watcher takes what is there.
    Take(usize),
    /// A watcher goes.
    Leave(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let text = |most| proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..=most);
    let key = proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 1..=4);
    let frame = proptest::collection::vec(key.prop_map(Bytes::from), 1..8);
    prop_oneof![
        4 => frame.prop_map(Deed::Append),
        4 => Just(Deed::Publish),
        4 => Just(Deed::Look),
        3 => (text(3), 0..=1_000_u64).prop_map(|(prefix, from)| Deed::Begin(prefix.into(), from)),
        6 => any::<usize>().prop_map(Deed::Take),
        1 => any::<usize>().prop_map(Deed::Leave),
    ]
}

struct Watcher {
    follow: Follow,
    prefix: Bytes,
    from: Seq,
    told: Vec<Seq>,
}

impl Watcher {
    /// Takes what is there, and has exactly what is wanted up to where it says it is.
    fn take(&mut self, shard: &Shard, runtime: &Runtime) {
        let before = self.follow.at();
        let events = runtime.block_on(self.follow.next()).unwrap();
        self.told.extend(seqs(events));
        let at = self.follow.at();
        assert!(
            at >= before && at <= *shard.visible.borrow(),
            "{before} then {at}"
        );
        assert_eq!(
            self.told,
            shard.wanted(&self.prefix, self.from, at.seq),
            "{:?}",
            self.prefix
        );
    }
}

struct World {
    shard: Shard,
    hub: Arc<Hub>,
    watchers: Vec<Watcher>,
    runtime: Runtime,
}

impl World {
    fn new(shard: Shard, room: Room) -> Self {
        let hub = Hub::new(shard.log.clone(), shard.visible.subscribe(), room);
        Self {
            shard,
            hub: Arc::new(hub),
            watchers: Vec::new(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
        }
    }

    fn look(&self) -> bool {
        let visible = *self.shard.visible.borrow();
        self.hub.step(visible, &mut Vec::new())
    }

    fn act(&mut self, deed: Deed) {
        let count = self.watchers.len();
        match deed {
            Deed::Append(keys) => self.shard.append(&keys),
            Deed::Publish => self.shard.publish(),
            Deed::Look => _ = self.look(),
            Deed::Begin(prefix, thousandths) => {
                let from = self.shard.visible.borrow().seq * thousandths / 1_000;
                let at = Position::new(u32::from(from > 0), from);
                self.watchers.push(Watcher {
                    follow: Follow::new(Arc::clone(&self.hub), prefix.clone(), at),
                    prefix,
                    from,
                    told: Vec::new(),
                });
            }
            Deed::Take(nth) if count > 0 => {
                self.watchers[nth % count].take(&self.shard, &self.runtime)
            }
            Deed::Leave(nth) if count > 0 => drop(self.watchers.swap_remove(nth % count)),
            Deed::Take(_) | Deed::Leave(_) => {}
        }
    }

    /// All come to the end.
    fn finish(&mut self) {
        self.shard.publish();
        let end = *self.shard.visible.borrow();
        for watcher in &mut self.watchers {
            for _ in 0..100 {
                if watcher.follow.at() == end {
                    break;
                }
                watcher.take(&self.shard, &self.runtime);
                while self.hub.step(end, &mut Vec::new()) {}
            }
            assert_eq!(watcher.follow.at(), end, "it comes to the end");
        }
        self.watchers.clear();
        assert!(self.hub.is_empty(), "nobody is left in the index");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn each_watcher_has_what_it_must_have_at_every_moment(
        deeds in proptest::collection::vec(deed(), 1..120),
        // An event has some 80 bytes: from no queue at all to one that is never full.
        queue_bytes in prop_oneof![Just(0_usize), Just(100), Just(300), Just(1 << 20)],
        all_bytes in prop_oneof![Just(500_usize), Just(1 << 20)],
        shared_bytes in prop_oneof![Just(0_usize), Just(300), Just(1 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let room = Room { queue_bytes, all_bytes, shared_bytes, ..Room::default() };
        let mut world = World::new(Shard::create(dir.path()), room);
        for deed in deeds {
            world.act(deed);
        }
        world.finish();
    }
}
