//! What `kv verify` can be told.

use std::time::Duration;

use clap::Args;

use crate::terms::duration;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Compare every entry, key and value, instead of counts and sums
    #[arg(long)]
    pub(crate) deep: bool,
    /// How long a replica may take to get where its primary is
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) wait: Duration,
    /// With --deep: name so many of a replica's keys that differ; all are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) show: u64,
}
