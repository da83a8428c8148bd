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

/// Tells a person how far it has come. Shared by all shards; std mutex: held for a line.
pub(crate) struct Teller(Mutex<Told>);

struct Told {
    began: HashMap<String, Instant>,
    last: Instant,
    warning: String,
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
            warning: String::new(),
        }))
    }

    /// Tells something that happens once.
    pub(crate) fn say(&self, text: &str) {
        // If nobody listens, nobody is left to be told.
        let _ = writeln!(std::io::stderr(), "kv: {}", harmless(text));
    }

    /// Tells what is not as it should be, once as long as it stays so.
    pub(crate) fn warn(&self, text: String) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.warning != text {
            self.say(&text);
            told.warning = text;
        }
    }

    /// Whether anything was not as it should be.
    pub(crate) fn has_warned(&self) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !told.warning.is_empty()
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
