//! Lines of a file or of standard input, taken in windows of entries that are stored together.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kvclient::wire::MAX_VALUE_BYTES_CEILING;

use super::entry::LineEntry;

/// Entries and bytes that are stored together.
const WINDOW_ENTRIES: usize = 1_024;
const WINDOW_BYTES: usize = 8 << 20;

/// Longest line: the largest value, every byte of it escaped, and a key.
const MAX_LINE_BYTES: u64 = 6 * (MAX_VALUE_BYTES_CEILING as u64) + (64 << 10);

/// A line that was read, and its number.
pub(crate) type Numbered = (u64, LineEntry);

/// Lines of a file, with their numbers.
pub(crate) struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    /// Read, and left for the next window.
    left: Option<Numbered>,
}

impl<R: Read> Lines<R> {
    /// All lines of an input.
    pub(crate) fn new(input: R) -> Self {
        Self {
            input: BufReader::new(input),
            number: 0,
            left: None,
        }
    }

    /// The next entries, and what is wrong with the line behind them. Empty at the end. No key stands in it twice: what
    /// is under way together keeps no order.
    pub(crate) fn window(&mut self) -> (Vec<Numbered>, Result<(), String>) {
        let (mut window, mut bytes) = (Vec::<Numbered>::new(), 0);
        let mut keys = HashSet::new();
        while window.len() < WINDOW_ENTRIES && bytes < WINDOW_BYTES {
            match self.next_numbered() {
                Ok(Some((number, entry))) => {
                    if !keys.insert(entry.key.clone()) {
                        self.left = Some((number, entry));
                        break;
                    }
                    bytes += entry.key.len() + entry.value.len();
                    window.push((number, entry));
                }
                Ok(None) => break,
                Err(problem) => return (window, Err(format!("line {}: {problem}", self.number))),
            }
        }
        (window, Ok(()))
    }

    fn next_numbered(&mut self) -> Result<Option<Numbered>, String> {
        match self.left.take() {
            Some(left) => Ok(Some(left)),
            None => Ok(self.next_entry()?.map(|entry| (self.number, entry))),
        }
    }

    fn next_entry(&mut self) -> Result<Option<LineEntry>, String> {
        loop {
            let mut line = Vec::new();
            self.number += 1;
            let mut limited = (&mut self.input).take(MAX_LINE_BYTES);
            let read = limited.read_until(b'\n', &mut line);
            match read.map_err(|error| error.to_string())? {
                0 => return Ok(None),
                _ if line.trim_ascii().is_empty() => continue,
                _ if !line.ends_with(b"\n") && line.len() as u64 == MAX_LINE_BYTES => {
                    return Err("it is longer than any entry's".to_owned());
                }
                _ => return LineEntry::read(&line, now_ms()).map(Some),
            }
        }
    }
}

/// Unix milliseconds, now.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms)
}

/// A time in whole milliseconds.
pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_windows_without_a_key_twice() {
        let text = "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\",\"value\":\"2\"}\n{\"key\":\"a\",\"value\":\"3\"}\nx\n";
        let mut lines = Lines::new(text.as_bytes());
        let numbers = |window: &[Numbered]| window.iter().map(|(n, _)| *n).collect::<Vec<_>>();
        let (window, ended) = lines.window();
        assert_eq!((numbers(&window), ended), (vec![1, 3], Ok(())));
        let (window, ended) = lines.window();
        assert_eq!(numbers(&window), [4]);
        assert!(ended.expect_err("no line").starts_with("line 5: "));
    }

    #[test]
    fn a_line_without_an_end_is_not_read_for_ever() {
        let mut lines = Lines::new(std::io::repeat(b'x'));
        let (_, ended) = lines.window();
        assert_eq!(
            ended,
            Err("line 1: it is longer than any entry's".to_owned())
        );
    }
}
