//! What is wrong: how bad, with whom, what it is, and what to do about it.

use std::fmt;

use crate::{
    failure::Failure,
    out::{Format, Out},
    text::escaped,
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Something does not work, or data is in danger.
    Error,
    /// It works, and will not for long, or not as somebody expects.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// A node, a shard, the map.
    pub(crate) about: String,
    pub(crate) what: String,
    pub(crate) advice: String,
}

impl Finding {
    pub(crate) fn error(
        about: impl fmt::Display,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            about: about.to_string(),
            what: what.into(),
            advice: advice.into(),
        }
    }

    pub(crate) fn warning(
        about: impl fmt::Display,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(about, what, advice)
        }
    }

    /// Prints it.
    pub(crate) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Self {
            about,
            what,
            advice,
            ..
        } = self;
        match out.format {
            Format::Json => out.json(|line| {
                line.field("severity", severity)
                    .field("about", about)
                    .field("finding", what)
                    .field("advice", advice)
            }),
            // Part of it was said by nodes, or by whatever else answers at their addresses.
            Format::Text => {
                let text = format!("{about}: {what}: {advice}");
                out.text(&format!("{severity:<7}  {}\n", escaped(text.as_bytes())))
            }
        }
    }
}
