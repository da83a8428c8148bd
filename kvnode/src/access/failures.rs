//! Unknown tokens, counted by the address they come from: whoever tries many waits for his answers.
//!
//! Ten a second are answered at once; what comes faster is answered as if it had come at that pace, at most a second
//! late. Only answers to unknown tokens wait: a known one is never looked up here, so nobody is locked out by what
//! another does, also from the same address. What is kept is bounded: beyond so many addresses the stalest go.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Pace at which unknown tokens of one address are answered.
const EVERY: Duration = Duration::from_millis(100);

/// How many may come at once before the pace is kept.
const AT_ONCE: u32 = 10;

/// Longest wait. A caller who waits holds a connection of his own; what takes a second is told as a slow request.
const LONGEST: Duration = Duration::from_millis(900);

/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 4_096;

/// How often one address, or one token, is told in the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Unknown tokens of late.
#[derive(Debug, Default)]
pub struct Failures {
    /// Std lock: never held over an await, and taken by nobody who brings a known token.
    by_address: Mutex<HashMap<IpAddr, Tries>>,
    /// Tokens that came after their time, by name: no more than were ever in the file.
    expired: Mutex<HashMap<String, Told>>,
}

/// What came from one address.
#[derive(Debug)]
struct Tries {
    /// When the next one is due, at the pace allowed.
    due: Instant,
    told: Told,
}

/// What is told once in a while: how often it has happened since.
#[derive(Debug, Default)]
struct Told {
    untold: u64,
    last: Option<Instant>,
}

/// What is to be done about an unknown token.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How long its answer waits.
    pub delay: Duration,
    /// How many to tell in the log now; `None`: they were told lately.
    pub tell: Option<u64>,
}

impl Failures {
    /// Another one has come.
    pub fn note(&self, address: IpAddr, now: Instant) -> Verdict {
        let address = network(address);
        let mut all = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ADDRESSES && !all.contains_key(&address) {
            forget_stalest(&mut all, now);
        }
        let tries = all.entry(address).or_insert(Tries {
            due: now,
            told: Told::default(),
        });
        tries.note(now)
    }

    /// A token came after its time; how many times to tell now.
    pub fn note_expired(&self, name: &str, now: Instant) -> Option<u64> {
        let mut all = self.expired.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.to_owned()).or_default().note(now)
    }
}

impl Tries {
    fn note(&mut self, now: Instant) -> Verdict {
        let ahead = EVERY * AT_ONCE;
        let due = self.due.max(now);
        // Not further than the longest wait: what comes later does not pay for it.
        self.due = (due + EVERY).min(now + ahead + LONGEST);
        Verdict {
            delay: self.due.saturating_duration_since(now + ahead),
            tell: self.told.note(now),
        }
    }
}

impl Told {
    fn note(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        let is_time = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= TELL_EVERY);
        is_time.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.untold)
        })
    }
}

/// Whose address it is: of IPv6 one caller has 64 bits of addresses.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & !u128::from(u64::MAX)).to_be_bytes()),
    }
}

/// Makes room: those who have not tried for a while go, and if there are none, half of all.
fn forget_stalest(all: &mut HashMap<IpAddr, Tries>, now: Instant) {
    all.retain(|_, tries| tries.due > now);
    if all.len() >= MAX_ADDRESSES {
        let mut at = 0;
        all.retain(|_, _| {
            at += 1;
            at % 2 == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + last).to_be_bytes())
    }

    #[test]
    fn a_few_are_answered_at_once_and_many_at_a_pace() {
        let (failures, begun) = (Failures::default(), Instant::now());
        let mut delays = (0..30).map(|_| failures.note(address(1), begun).delay);
        assert!(delays.by_ref().take(10).all(|delay| delay.is_zero()));
        let waits: Vec<u128> = delays.map(|delay| delay.as_millis()).collect();
        assert_eq!(waits[..3], [100, 200, 300]);
        assert_eq!(waits.last(), Some(&900), "{waits:?}");
        assert!(failures.note(address(2), begun).delay.is_zero(), "others");
        let later = begun + Duration::from_secs(3);
        assert!(failures.note(address(1), later).delay.is_zero());
    }

    /// Of IPv6 one caller has more addresses than anybody could count.
    #[test]
    fn one_network_is_one_caller() {
        let (failures, begun) = (Failures::default(), Instant::now());
        let v6 = |net: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]);
        for host in 0..30 {
            failures.note(v6(1, host), begun);
        }
        assert!(!failures.note(v6(1, 99), begun).delay.is_zero());
        assert!(failures.note(v6(2, 0), begun).delay.is_zero(), "another");
    }

    #[test]
    fn a_slow_guesser_never_waits() {
        let (failures, begun) = (Failures::default(), Instant::now());
        for n in 0..100 {
            let verdict = failures.note(address(1), begun + EVERY * n);
            assert!(verdict.delay.is_zero(), "{n}");
        }
    }

    #[test]
    fn each_address_is_told_once_a_minute() {
        let (failures, begun) = (Failures::default(), Instant::now());
        let tell = |seconds| {
            let now = begun + Duration::from_secs(seconds);
            failures.note(address(1), now).tell
        };
        assert_eq!(
            [tell(0), tell(1), tell(59), tell(61)],
            [Some(1), None, None, Some(3)]
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (failures, now) = (Failures::default(), Instant::now());
        for n in 0..20_000 {
            failures.note(address(n), now);
        }
        let kept = failures.by_address.lock().unwrap().len();
        assert!(kept <= MAX_ADDRESSES, "{kept}");
    }
}
