//! Being told to stop: Ctrl-C, or SIGTERM from whoever supervises.

use crate::failure::Failure;

/// Waits until the program is told to stop.
///
/// # Errors
/// [`Failure::Local`]: this machine lets nobody tell it.
#[cfg(unix)]
pub(crate) async fn stopped() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        signal(SignalKind::terminate())?.recv().await;
        Ok(())
    };
    let told = tokio::select! {
        told = tokio::signal::ctrl_c() => told,
        told = terminated => told,
    };
    told.map_err(|error: std::io::Error| Failure::Local(format!("signals: {error}")))
}

/// Waits until the program is told to stop.
///
/// # Errors
/// [`Failure::Local`]: this machine lets nobody tell it.
#[cfg(not(unix))]
pub(crate) async fn stopped() -> Result<(), Failure> {
    let told = tokio::signal::ctrl_c().await;
    told.map_err(|error| Failure::Local(format!("signals: {error}")))
}
