//! The two streams a command writes to: results on standard output, everything else on standard error.
//!
//! Standard output is buffered and its errors count: whoever reads it may go away at any time, and that ends the
//! program quietly. What cannot be written to standard error is lost; nobody is left to be told.

use std::io::{BufWriter, IsTerminal, Stdout, Write};

use kvclient::wire::line::Line;
use serde::Serialize;

use crate::{
    failure::Failure,
    text::{escape_into, harmless, is_plain_text},
};

/// How results and errors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines for people and for `cut`.
    Text,
    /// Lines of JSON.
    Json,
}

/// Where a command writes.
pub(crate) struct Out {
    pub(crate) format: Format,
    stdout: BufWriter<Stdout>,
    is_terminal: bool,
    line: Vec<u8>,
}

impl Out {
    pub(crate) fn new(format: Format) -> Self {
        let stdout = std::io::stdout();
        Self {
            format,
            is_terminal: stdout.is_terminal(),
            stdout: BufWriter::new(stdout),
            line: Vec::new(),
        }
    }

    /// Writes columns with tabs between them; in each, whatever would not stand in one is escaped.
    pub(crate) fn columns(&mut self, columns: &[&[u8]]) -> Result<(), Failure> {
        self.line.clear();
        for (number, column) in columns.iter().enumerate() {
            if number > 0 {
                self.line.push(b'\t');
            }
            escape_into(&mut self.line, column);
        }
        self.line.push(b'\n');
        self.write_line()
    }

    /// Writes a line of JSON.
    pub(crate) fn json(
        &mut self,
        fields: impl FnOnce(Line<'_>) -> Line<'_>,
    ) -> Result<(), Failure> {
        self.line.clear();
        fields(Line::begin(&mut self.line)).end();
        self.write_line()
    }

    /// Writes an object as a line of JSON.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(object);
        let json = json.map_err(|error| Failure::Local(format!("JSON: {error}")))?;
        self.write(json.as_bytes())?;
        self.write(b"\n")
    }

    /// Writes bytes as they are. Only on a terminal they get a line end, and are escaped if they are no text: it
    /// would obey them.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_terminal && !is_plain_text(bytes) {
            self.columns(&[bytes])?;
            self.note("not text; shown with escapes, since this is a terminal");
            return Ok(());
        }
        self.write(bytes)?;
        match self.is_terminal && !bytes.ends_with(b"\n") {
            true => self.write(b"\n"),
            false => Ok(()),
        }
    }

    /// Writes text made here.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text.as_bytes())
    }

    /// Passes on what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(|error| Failure::output(&error))
    }

    /// A remark for a person. Nodes say part of it, and whatever else answers at their addresses.
    pub(crate) fn note(&mut self, text: &str) {
        // In the order in which it was said.
        let _ = self.stdout.flush();
        let _ = writeln!(std::io::stderr(), "kv: {}", harmless(text));
    }

    /// Says why something failed.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        match self.format {
            Format::Text => {
                if let Some(text) = failure.text() {
                    self.note(&text);
                }
            }
            Format::Json => {
                let _ = self.stdout.flush();
                let _ = std::io::stderr().write_all(&failure.json().unwrap_or_default());
            }
        }
    }

    fn write_line(&mut self) -> Result<(), Failure> {
        let written = self.stdout.write_all(&self.line);
        written.map_err(|error| Failure::output(&error))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.stdout.write_all(bytes);
        written.map_err(|error| Failure::output(&error))
    }
}
