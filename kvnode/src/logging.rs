//! Log lines: how they look, and which are written. Which, may change while the node runs.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, reload};

use crate::config::{ConfigError, LogFormat, Settings};

/// Without `--log-level`: the HTTP library tells what it does at the level of what a node does.
const DEFAULT_LEVEL: &str = "info,actix_server=warn";

/// Puts another filter in force.
type Set = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send>;

/// Log lines on standard error, from when it is made until the process ends.
pub struct Logging {
    level: String,
    set: Set,
}

impl Logging {
    /// Begins to write log lines. Once in a process.
    ///
    /// # Errors
    /// [`ConfigError`]: `--log-level` is none.
    pub fn start(settings: &Settings) -> Result<Self, ConfigError> {
        let level = level_of(settings);
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter(level)?)
            .with_writer(std::io::stderr);
        let set: Set = match settings.log_format.unwrap_or(LogFormat::Text) {
            LogFormat::Text => {
                let lines = lines
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_filter_reloading();
                let handle = lines.reload_handle();
                lines.init();
                Box::new(move |filter| handle.reload(filter))
            }
            LogFormat::Json => {
                let lines = lines.json().with_filter_reloading();
                let handle = lines.reload_handle();
                lines.init();
                Box::new(move |filter| handle.reload(filter))
            }
        };
        Ok(Self {
            level: level.to_owned(),
            set,
        })
    }

    /// Writes what these settings say from now on; the new level, if it is another one.
    ///
    /// # Errors
    /// [`ConfigError`]: `--log-level` is none; what was written before is written on.
    pub fn change(&mut self, settings: &Settings) -> Result<Option<&str>, ConfigError> {
        let level = level_of(settings);
        if level == self.level {
            return Ok(None);
        }
        let set = (self.set)(filter(level)?);
        set.map_err(|error| ConfigError::new(format!("the log level cannot be set: {error}")))?;
        self.level = level.to_owned();
        Ok(Some(&self.level))
    }
}

/// Whether these settings name a level.
///
/// # Errors
/// [`ConfigError`]: `--log-level` is none.
pub fn check(settings: &Settings) -> Result<(), ConfigError> {
    filter(level_of(settings)).map(drop)
}

fn level_of(settings: &Settings) -> &str {
    settings.log_level.as_deref().unwrap_or(DEFAULT_LEVEL)
}

fn filter(level: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(level)
        .map_err(|error| ConfigError::new(format!("--log-level {level:?}: {error}")))
}
