//! What all requests share, and where they wait.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::super::listen::Listen;
use super::super::token::Token;
use super::super::{AgentError, LocalAgent};

#[derive(Clone)]
pub(in crate::energy::agent) struct Shared {
    pub(super) agent: Arc<LocalAgent>,
    pub(super) token: Option<Token>,
    pub(super) is_local: bool,
    /// One baseline is learned at a time, however many ask.
    pub(super) learning: Arc<Semaphore>,
}

impl Shared {
    /// What all requests share.
    pub fn new(agent: Arc<LocalAgent>, token: Option<Token>, listen: &Listen) -> Self {
        Self {
            agent,
            token,
            is_local: !matches!(listen, Listen::Tcp(address) if !address.ip().is_loopback()),
            learning: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Runs what waits for the disk or the meter where it holds up nobody.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(AgentError::Meter(io::Error::other(error))))
}
