//! Where spans are sent: the collector that the configuration or the environment names.
//!
//! The environment wins, as everywhere with OpenTelemetry: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is the whole URL, `OTEL_EXPORTER_OTLP_ENDPOINT` and `[telemetry]
//! otlp_endpoint` are the base that `/v1/traces` is put behind. `OTEL_SDK_DISABLED=true` switches traces off.

use url::Url;

/// The path of traces below a collector's base.
const TRACES_PATH: &str = "v1/traces";

/// A collector's URL for traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(pub(super) String);

/// Why a collector can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL that spans can be sent to.
    #[error("{place}: {url:?} is no collector: {reason}; write http://HOST:4318 or https://HOST:4318")]
    Invalid {
        /// Where it stands.
        place: String,
        /// What stands there.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The exporter refuses it, or its own settings in the environment.
    #[error("traces can't be sent to {url}: {reason}")]
    Exporter {
        /// The collector.
        url: String,
        /// Why.
        reason: String,
    },
}

/// Whether it is the base URL of a collector.
///
/// # Errors
/// What is wrong with it.
pub fn check(url: &str) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|error| error.to_string())?;
    match (parsed.scheme(), parsed.has_host()) {
        ("http" | "https", true) => Ok(()),
        (scheme, _) => Err(format!("spans are sent over http or https, not {scheme:?}")),
    }
}

impl Endpoint {
    /// The collector that the environment names, else the configured one; none: there are no traces.
    ///
    /// # Errors
    /// If what is named there is no URL of a collector.
    pub fn chosen(configured: Option<&str>) -> Result<Option<Self>, EndpointError> {
        Self::choose(configured, |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    fn choose(
        configured: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, EndpointError> {
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let whole = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        if let Some(url) = variable(whole) {
            return Self::checked(whole, url.trim()).map(Some);
        }
        let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (place, url) = match (variable(base), configured) {
            (Some(url), _) => (base, url),
            (None, Some(url)) => ("[telemetry] otlp_endpoint", url.to_owned()),
            (None, None) => return Ok(None),
        };
        let Self(url) = Self::checked(place, url.trim())?;
        Ok(Some(Self(format!("{}/{TRACES_PATH}", url.trim_end_matches('/')))))
    }

    fn checked(place: &str, url: &str) -> Result<Self, EndpointError> {
        let invalid = |reason| EndpointError::Invalid { place: place.into(), url: url.into(), reason };
        check(url).map_err(invalid)?;
        Ok(Self(url.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(configured: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<String>, EndpointError> {
        let find = |wanted: &str| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        };
        Endpoint::choose(configured, find).map(|found| found.map(|Endpoint(url)| url))
    }

    #[test]
    fn the_environment_wins_over_the_configuration() {
        let (base, whole) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let (own, other) = ("http://own:4318", "http://other:4318/");
        let url = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(chosen(None, &[]), Ok(None));
        assert_eq!(chosen(Some(own), &[]), url("http://own:4318/v1/traces"));
        assert_eq!(chosen(Some(own), &[(base, other)]), url("http://other:4318/v1/traces"));
        assert_eq!(chosen(Some(own), &[(base, other), (whole, "https://third/x")]), url("https://third/x"));
        assert_eq!(chosen(Some(own), &[("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
    }

    #[test]
    fn what_is_no_collector_is_refused_where_it_stands() {
        for (variables, place) in [
            (vec![], "[telemetry] otlp_endpoint"),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")], "OTEL_EXPORTER_OTLP_ENDPOINT"),
            (vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://x")], "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ] {
            let error = chosen(Some("nowhere"), &variables).unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains("http://HOST:4318"), "{error}");
        }
    }
}
