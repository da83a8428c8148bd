//! What `kv top` can be told.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print one table and end, as where standard output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
}
