//! Which record of a group each request made.
//!
//! Clients count their requests up, so that nearly every one is new by one comparison with the largest of its client.
//! Only when another comes are the marks of the group put in a table, to be looked up.
//!
//! Invariant: of the first few clients the largest n is known; of others nothing is, and they are looked up.

use std::collections::HashMap;

use kvclient::{
    position::Position,
    wire::{
        batch::RequestId,
        log::{Record, RequestMark},
    },
};

use crate::hashing::Seeded;

/// Of so many clients the largest n is known. Most groups have fewer.
const FEW_CLIENTS: usize = 8;

/// Where the marks of a group's records are.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The largest n of each of the first clients.
    largest: Vec<(u128, u64)>,
    /// Those of the first `indexed` records, by client and n.
    places: HashMap<(u128, u64), usize, Seeded>,
    indexed: usize,
}

impl Marks {
    /// Notes that the mark of one more record is there.
    pub(super) fn add(&mut self, mark: &RequestMark) {
        let few = self.largest.len() < FEW_CLIENTS;
        let mut known = self.largest.iter_mut();
        match known.find(|(client, _)| *client == mark.client) {
            Some((_, largest)) => *largest = mark.n.max(*largest),
            None if few => self.largest.push((mark.client, mark.n)),
            None => {}
        }
    }

    /// The mark that a request left in one of the group's records.
    pub(super) fn find<'a>(
        &mut self,
        id: &RequestId,
        records: &'a [(Position, Record)],
    ) -> Option<&'a RequestMark> {
        if !self.may_have(id) {
            return None;
        }
        for (at, (_, record)) in records.iter().enumerate().skip(self.indexed) {
            if let Some(mark) = &record.mark {
                self.places.insert((mark.client, mark.n), at);
            }
        }
        self.indexed = records.len();
        let at = self.places.get(&(id.client, id.n))?;
        records[*at].1.mark.as_ref()
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.largest.clear();
        self.places.clear();
        self.indexed = 0;
    }

    fn may_have(&self, id: &RequestId) -> bool {
        let mut known = self.largest.iter();
        match known.find(|(client, _)| *client == id.client) {
            Some((_, largest)) => id.n <= *largest,
            None => self.largest.len() == FEW_CLIENTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kvclient::wire::{log::Effect, short_bytes::ShortBytes};

    use super::*;

    #[test]
    fn each_is_found_however_many_clients_and_in_whatever_order() {
        let (mut marks, mut records) = (Marks::default(), Vec::new());
        for (client, n) in (0..12).flat_map(|client| [(client, 5), (client, 9), (client, 7)]) {
            let id = RequestId {
                client,
                n,
                floor: 0,
            };
            assert_eq!(marks.find(&id, &records), None, "{client} {n}");
            let mut record = Record::new(
                Bytes::from_static(b"k"),
                Effect::Delete { by_expiry: false },
            );
            record.mark = Some(RequestMark {
                client,
                n,
                floor: 0,
                digest: n,
                outcome: ShortBytes::default(),
            });
            marks.add(record.mark.as_ref().unwrap());
            records.push((Position::default(), record));
            assert_eq!(
                marks.find(&id, &records),
                records.last().unwrap().1.mark.as_ref()
            );
        }
        for (_, record) in &records {
            let mark = record.mark.as_ref().unwrap();
            let id = RequestId {
                client: mark.client,
                n: mark.n,
                floor: 0,
            };
            assert_eq!(marks.find(&id, &records), Some(mark));
        }
        marks.clear();
        let id = RequestId {
            client: 1,
            n: 5,
            floor: 0,
        };
        assert_eq!(marks.find(&id, &[]), None);
    }
}
