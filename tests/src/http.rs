//! Asks a host's admin server as any HTTP client would.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use ureq::http::Request;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}

impl Ask {
    /// Asks with GET.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: None }
    }

    /// Another method, with a JSON body.
    #[must_use]
    pub fn with_json(method: &'static str, path: &str, body: &Value) -> Self {
        let asked = Self { method, body: Some(body.to_string()), ..Self::get(path) };
        asked.header("Content-Type", "application/json")
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Shows a token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sends it to `HOST:PORT`.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn send(self, address: &str) -> Result<Answer> {
        let url = format!("http://{}{}", address.trim(), self.path);
        let asking = tokio::task::spawn_blocking(move || -> Result<Answer> {
            let config =
                ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_LIMIT)).build();
            let agent = ureq::Agent::new_with_config(config);
            let mut request = Request::builder().method(self.method).uri(&url);
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            let told = || format!("{} {url}", self.method);
            let mut response = match self.body {
                Some(body) => agent.run(request.body(body)?).with_context(told)?,
                None => agent.run(request.body(())?).with_context(told)?,
            };
            Ok(Answer { status: response.status().as_u16(), body: response.body_mut().read_to_string()? })
        });
        asking.await.context("the request was cancelled")?
    }
}
