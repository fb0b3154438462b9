//! The CLI's side of the admin server.

use std::net::SocketAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::api::{DeadLetterView, StatusView};
use super::server::ADDRESS_FILE;
use crate::config::HostConfig;

/// Why a running host could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The configuration has none.
    #[error("the admin server is switched off in {0}: set [admin] address")]
    Off(String),
    /// Nothing listens.
    #[error("no host answers at {address}: is `pelton run` running with this configuration? ({reason})")]
    NoHost {
        /// Where it should be.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The host said no.
    #[error("{0}")]
    Refused(String),
    /// The answer was not understood.
    #[error("the host's answer can't be read: {0}; are host and CLI of the same version?")]
    Unreadable(String),
}

/// A client for one host.
pub struct Client {
    base: String,
    agent: ureq::Agent,
}

/// A host that takes longer than this hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Client {
    /// A client for the host with this configuration. If its port is any free one, the running host's address is taken from its data directory.
    ///
    /// # Errors
    /// If the configuration has no admin server, or no host has left its address.
    pub fn new(config: &HostConfig) -> Result<Self, ClientError> {
        let configured = config.admin.ok_or_else(|| ClientError::Off(config.file.display().to_string()))?;
        let address = if configured.port() == 0 { Self::find(config)? } else { configured };
        let settings = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        Ok(Self { base: format!("http://{address}"), agent: settings.build().into() })
    }

    fn find(config: &HostConfig) -> Result<SocketAddr, ClientError> {
        let file = config.store.path.join(ADDRESS_FILE);
        let no_host = |reason: String| ClientError::NoHost { address: file.display().to_string(), reason };
        let text = std::fs::read_to_string(&file).map_err(|error| no_host(error.to_string()))?;
        text.trim().parse().map_err(|_| no_host(format!("{text:?} is no address")))
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// If there is no host, or it can't answer.
    pub fn status(&self) -> Result<StatusView, ClientError> {
        self.get("/status", &[])
    }

    /// `GET /dead-letters`.
    ///
    /// # Errors
    /// If there is no host, or it does not know the consumer.
    pub fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetterView>, ClientError> {
        let limit = limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(consumer.map(|consumer| ("consumer", consumer)));
        self.get("/dead-letters", &query)
    }

    /// `GET /dead-letters/CONSUMER/SEQUENCE`.
    ///
    /// # Errors
    /// If there is no host, or no such dead letter.
    pub fn dead_letter(&self, consumer: &str, sequence: u64) -> Result<DeadLetterView, ClientError> {
        self.get(&format!("/dead-letters/{consumer}/{sequence}"), &[])
    }

    fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, ClientError> {
        let request = self.agent.get(format!("{}{path}", self.base)).query_pairs(query.iter().copied());
        let no_host =
            |error: ureq::Error| ClientError::NoHost { address: self.base.clone(), reason: error.to_string() };
        let mut response = request.call().map_err(no_host)?;
        let unreadable = |error: ureq::Error| ClientError::Unreadable(error.to_string());
        if response.status().is_success() {
            return response.body_mut().read_json().map_err(unreadable);
        }
        let text = response.body_mut().read_to_string().map_err(unreadable)?;
        let said = serde_json::from_str::<serde_json::Value>(&text).ok();
        let error = said.and_then(|value| value.get("error").and_then(|error| error.as_str().map(str::to_owned)));
        Err(ClientError::Refused(error.unwrap_or(text)))
    }
}
