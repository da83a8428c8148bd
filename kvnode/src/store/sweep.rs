//! Keeps the table of remembered requests bounded: clients that are idle go, and above a cap the oldest requests.
//!
//! What a client says itself (its floor, or 1,024 without one) is kept by the writer. This is for clients that say
//! nothing any more. Each flush walks on from where the last one stopped, client by client, for as many rows as the
//! memtable brought and some more: a fraction of what the flush costs anyway, and the table is gone through sooner than
//! it can double.
//!
//! Finding the very oldest would need a second index. So above the cap every request older than a share of the idle
//! time goes as it is met, a share that shrinks as the table grows. If a client's newest request stays, it takes on the
//! floor below which all are gone: what is forgotten must not be taken for new after a restart.

use std::ops::Bound;

use heed::RwTxn;

use super::{
    env::{Env, Table},
    error::StoreError,
    requests::{
        IDLE_MS, MAX_REQUESTS, Request, RequestId, decode_request, encode_request, kept_from,
        parse_request_key, request_key,
    },
};

/// Rows that each flush looks at or removes, beside two for each request that it brought.
const STEP_ROWS: usize = 1_024;

/// One step of the walk through the table.
pub(super) struct Sweep<'a, 'e> {
    table: Table,
    txn: &'a mut RwTxn<'e>,
    now_ms: u64,
    max_requests: u64,
    rows_left: usize,
}

impl<'a, 'e> Sweep<'a, 'e> {
    /// A step in a flush that brings `new_requests` and ends at shard time `now_ms`.
    pub(super) fn new(env: &Env, txn: &'a mut RwTxn<'e>, now_ms: u64, new_requests: usize) -> Self {
        Self {
            table: env.requests,
            txn,
            now_ms,
            max_requests: MAX_REQUESTS as u64,
            rows_left: STEP_ROWS + 2 * new_requests,
        }
    }

    /// Walks on from the client `start`; the client at which the next step begins.
    pub(super) fn run(mut self, start: u128) -> Result<u128, StoreError> {
        let mut client = start;
        while self.rows_left > 0 {
            self.rows_left -= 1;
            let Some((found, _)) = self.first_id((client, 0))? else {
                return Ok(0);
            };
            self.visit(found)?;
            // Of a client that was too much for this step the rest is for the next one.
            client = match self.rows_left {
                0 => found,
                _ => found.wrapping_add(1),
            };
        }
        Ok(client)
    }

    /// Removes what there is too much of one client.
    fn visit(&mut self, client: u128) -> Result<(), StoreError> {
        let Some(newest) = self.newest(client)? else {
            return Ok(());
        };
        let count = self.table.len(self.txn)?;
        let max_age_ms = if is_older(&newest, IDLE_MS, self.now_ms) {
            IDLE_MS
        } else if count > self.max_requests {
            IDLE_MS * self.max_requests / count
        } else {
            return Ok(());
        };
        match self.remove(client, max_age_ms)? {
            Some(removed) if removed < newest.mark.n => self.raise_floor(newest, removed + 1),
            _ => Ok(()),
        }
    }

    /// Removes requests older than that, from the lowest n up to the first that is not; the last n removed. What is
    /// damaged stays, for a verification to tell of.
    fn remove(&mut self, client: u128, max_age_ms: u64) -> Result<Option<u64>, StoreError> {
        let (from, to) = (request_key(client, 0), request_key(client, u64::MAX));
        let whole = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let mut last = None;
        for row in self.table.range(self.txn, &whole)? {
            let (key, row) = row?;
            let old = decode_request(key, row)
                .ok()
                .filter(|request| is_older(request, max_age_ms, self.now_ms));
            let (Some(old), 1..) = (old, self.rows_left) else {
                break;
            };
            self.rows_left -= 1;
            last = Some(old.mark.n);
        }
        if let Some(n) = last {
            let to = request_key(client, n);
            let removed = (Bound::Included(&from[..]), Bound::Included(&to[..]));
            self.table.delete_range(self.txn, &removed)?;
        }
        Ok(last)
    }

    fn raise_floor(&mut self, mut newest: Request, floor: u64) -> Result<(), StoreError> {
        newest.mark.floor = floor.max(kept_from(newest.mark.n, newest.mark.floor));
        let key = request_key(newest.mark.client, newest.mark.n);
        Ok(self.table.put(self.txn, &key, &encode_request(&newest))?)
    }

    fn first_id(&self, from: RequestId) -> Result<Option<RequestId>, StoreError> {
        let from = request_key(from.0, from.1);
        let mut rows = self
            .table
            .range(self.txn, &(Bound::Included(&from[..]), Bound::Unbounded))?;
        let row = rows.next().transpose()?;
        Ok(row.and_then(|(key, _)| parse_request_key(key)))
    }

    /// The request with the largest n; `None` if it is damaged.
    fn newest(&self, client: u128) -> Result<Option<Request>, StoreError> {
        let (from, to) = (request_key(client, 0), request_key(client, u64::MAX));
        let whole = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let row = self.table.rev_range(self.txn, &whole)?.next().transpose()?;
        Ok(row.and_then(|(key, row)| decode_request(key, row).ok()))
    }
}

fn is_older(request: &Request, max_age_ms: u64, now_ms: u64) -> bool {
    request.time_ms.saturating_add(max_age_ms) < now_ms
}

#[cfg(test)]
mod tests {
    use kvclient::{position::Position, wire::log::RequestMark};

    use super::*;

    const NOW: u64 = 10_000_000;

    /// A table with these requests: client, n, age.
    fn table(requests: &[(u128, u64, u64)]) -> (tempfile::TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::create(&dir.path().join("lmdb"), 16 << 20, 8).unwrap();
        let mut txn = env.write().unwrap();
        for &(client, n, age_ms) in requests {
            let mark = RequestMark {
                client,
                n,
                floor: 1,
                digest: 0,
                outcome: b"ok"[..].into(),
            };
            let request = Request {
                mark,
                position: Position::new(1, n),
                time_ms: NOW - age_ms,
            };
            let row = encode_request(&request);
            let key = request_key(client, n);
            env.requests.put(&mut txn, &key, &row).unwrap();
        }
        txn.commit().unwrap();
        (dir, env)
    }

    fn sweep(env: &Env, start: u128, rows: usize, max_requests: u64) -> u128 {
        let mut txn = env.write().unwrap();
        let step = Sweep {
            max_requests,
            rows_left: rows,
            ..Sweep::new(env, &mut txn, NOW, 0)
        };
        let next = step.run(start).unwrap();
        txn.commit().unwrap();
        next
    }

    fn left(env: &Env) -> Vec<(u128, u64, u64)> {
        let txn = env.read().unwrap();
        let rows = env.requests.iter(&txn).unwrap();
        rows.map(|row| {
            let (key, row) = row.unwrap();
            let mark = decode_request(key, row).unwrap().mark;
            (mark.client, mark.n, mark.floor)
        })
        .collect()
    }

    #[test]
    fn idle_clients_go_and_others_stay_whole() {
        let old = IDLE_MS + 1;
        let (_dir, env) = table(&[
            (1, 1, old),
            (1, 2, old),
            (2, 1, old),
            (2, 2, IDLE_MS),
            (u128::MAX, 1, old),
        ]);
        assert_eq!(sweep(&env, 0, 100, 100), 0, "it went through");
        assert_eq!(left(&env), [(2, 1, 1), (2, 2, 1)]);
    }

    #[test]
    fn a_step_is_bounded_and_the_next_goes_on() {
        let old = IDLE_MS + 1;
        let requests: Vec<_> = (1..=50).map(|n| (7, n, old)).chain([(9, 1, 0)]).collect();
        let (_dir, env) = table(&requests);
        let mut next = 0;
        for step in 1..=5 {
            next = sweep(&env, next, 11, 100);
            assert_eq!(left(&env).len(), 51 - 10 * step);
        }
        assert_eq!(left(&env), [(9, 1, 1)]);
        assert_eq!(next, 7);
        assert_eq!(sweep(&env, next, 11, 100), 0);
    }

    #[test]
    fn above_the_cap_the_older_ones_go_and_are_known_to_be_forgotten() {
        let half = IDLE_MS / 2;
        let (_dir, env) = table(&[
            (1, 1, half + 9),
            (1, 2, half + 8),
            (1, 3, half - 9),
            (2, 1, half + 9),
            (3, 1, 5),
            (3, 2, 5),
        ]);
        sweep(&env, 0, 100, 6);
        assert_eq!(left(&env).len(), 6, "not above the cap");
        sweep(&env, 0, 100, 3);
        assert_eq!(
            left(&env),
            [(1, 3, 3), (2, 1, 1), (3, 1, 1), (3, 2, 1)],
            "with four left the next may be a quarter older"
        );
        let cap = 2;
        sweep(&env, 0, 100, cap);
        assert_eq!(left(&env), [(1, 3, 3), (3, 1, 1), (3, 2, 1)]);
    }
}
