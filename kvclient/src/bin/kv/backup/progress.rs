//! How far a backup or a restore has come, told on standard error now and then.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::text::harmless;

/// Often enough to see that it goes on, seldom enough for a log.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How long a warning that comes again is not told again.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Tells a person how far it has come. Shared by all shards; std mutex: held for a line.
pub(crate) struct Teller(Mutex<Told>);

struct Told {
    began: HashMap<String, Instant>,
    last: Instant,
    has_warned: bool,
    /// When each was told. Shards warn beside each other.
    warnings: HashMap<String, Instant>,
}

/// Something that grows.
pub(crate) struct Growth<'a> {
    pub(crate) what: &'a str,
    pub(crate) entries: u64,
    pub(crate) of_entries: Option<u64>,
    pub(crate) bytes: u64,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Told {
            began: HashMap::new(),
            last: Instant::now(),
            has_warned: false,
            warnings: HashMap::new(),
        }))
    }

    /// Tells something that happens once.
    pub(crate) fn say(&self, text: &str) {
        // If nobody listens, nobody is left to be told.
        let _ = writeln!(std::io::stderr(), "kv: {}", harmless(text));
    }

    /// Tells what is not as it should be, and again now and then as long as it stays so.
    pub(crate) fn warn(&self, text: String) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_news(text.clone(), Instant::now()) {
            self.say(&text);
        }
    }

    /// Whether anything was not as it should be.
    pub(crate) fn has_warned(&self) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.has_warned
    }

    /// Tells how something grows, if it was not told a moment ago.
    pub(crate) fn grown(&self, growth: &Growth<'_>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let began = *told.began.entry(growth.what.to_owned()).or_insert(now);
        if now - told.last >= TELL_EVERY {
            told.last = now;
            self.say(&line(growth, now - began));
        }
    }
}

impl Told {
    /// Whether a warning was not told a moment ago; it is then noted as told.
    fn is_news(&mut self, warning: String, now: Instant) -> bool {
        self.has_warned = true;
        self.warnings
            .retain(|_, told_at| now - *told_at < WARN_EVERY);
        if self.warnings.contains_key(&warning) {
            return false;
        }
        self.warnings.insert(warning, now);
        true
    }
}

fn line(growth: &Growth<'_>, lasted: Duration) -> String {
    let Growth {
        what,
        entries,
        of_entries,
        bytes,
    } = growth;
    let seconds = lasted.as_secs_f64().max(0.001);
    let mut line = format!("{what}: {entries} entries");
    if let Some(all) = of_entries {
        line.push_str(&format!(" of about {all}"));
    }
    let rate = *bytes as f64 / seconds;
    line.push_str(&format!(
        ", {}, {} a second",
        size(*bytes as f64),
        size(rate)
    ));
    if let Some(all) = of_entries.filter(|all| all > entries && *entries > 0) {
        let left = seconds * (all - entries) as f64 / *entries as f64;
        line.push_str(&format!(", about {left:.0} s to go"));
    }
    line
}

/// Bytes for people.
pub(crate) fn size(bytes: f64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let unit = units.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes:.0} bytes"),
        |(name, unit)| format!("{:.1} {name}", bytes / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_shards_that_warn_in_turn_are_told_once_a_minute() {
        let teller = Teller::new();
        let mut told = teller.0.lock().expect("not poisoned");
        let start = Instant::now();
        let mut count = |seconds| {
            let now = start + Duration::from_secs(seconds);
            let both = ["shard a: silent", "shard b: silent"];
            let both = both.map(|text| told.is_news(text.to_owned(), now));
            both.into_iter().filter(|is_news| *is_news).count()
        };
        assert_eq!([0, 1, 59, 60, 61].map(&mut count), [2, 0, 0, 2, 0]);
        drop(told);
        assert!(teller.has_warned());
    }

    #[test]
    fn a_line_says_how_long_yet() {
        let growth = Growth {
            what: "shard s0",
            entries: 250,
            of_entries: Some(1_000),
            bytes: 5_000_000,
        };
        assert_eq!(
            line(&growth, Duration::from_secs(2)),
            "shard s0: 250 entries of about 1000, 5.0 MB, 2.5 MB a second, about 6 s to go"
        );
        let unknown = Growth {
            of_entries: None,
            bytes: 7,
            ..growth
        };
        assert_eq!(
            line(&unknown, Duration::from_secs(1)),
            "shard s0: 250 entries, 7 bytes, 7 bytes a second"
        );
    }
}
