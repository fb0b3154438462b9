//! Who the host is to a registry. Secrets are read when they are needed, so one that is changed is used the next time, and they are never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use thiserror::Error;

use crate::config::OciConfig;

const REGISTRY_VARIABLE: &str = "PELTON_OCI_REGISTRY";
const USER_VARIABLE: &str = "PELTON_OCI_USERNAME";
const PASSWORD_VARIABLE: &str = "PELTON_OCI_PASSWORD";
/// Largest file with logins, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A user with its password, and where it comes from.
pub(super) struct Login {
    /// None: as anyone.
    pub(super) user: Option<(String, String)>,
    place: String,
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some((user, _)) => write!(f, "as {user}, of {}", self.place),
            None => write!(f, "asked without a login{}", self.place),
        }
    }
}

/// A login is there and can't be used.
#[derive(Debug, Error)]
pub enum LoginError {
    /// A file that the configuration names can't be read.
    #[error("the login in {} can't be read: {error}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not what docker writes.
    #[error("{} has no logins as `docker login` writes them: {why}", file.display())]
    NotDockers {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The thread that reads them broke.
    #[error("the thread that reads logins broke")]
    Broke,
}

/// The login for a registry: of the environment, else of `[oci]`, else of docker's file.
pub(super) async fn find(registry: &str, config: &OciConfig) -> Result<Login, LoginError> {
    let (registry, config) = (registry.to_owned(), config.clone());
    let environment = Environment::read();
    let finding = tokio::task::spawn_blocking(move || find_blocking(&registry, &config, environment));
    finding.await.unwrap_or(Err(LoginError::Broke))
}

/// What the environment says.
#[derive(Default)]
struct Environment {
    login: Option<(String, String, String)>,
    docker_config: Option<PathBuf>,
}

impl Environment {
    fn read() -> Self {
        let value = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let login = (|| Some((value(REGISTRY_VARIABLE)?, value(USER_VARIABLE)?, value(PASSWORD_VARIABLE)?)))();
        let directory = value("DOCKER_CONFIG").map(PathBuf::from);
        let directory = directory.or_else(|| value("HOME").map(|home| Path::new(&home).join(".docker")));
        Self { login, docker_config: directory.map(|directory| directory.join("config.json")) }
    }
}

fn find_blocking(registry: &str, config: &OciConfig, environment: Environment) -> Result<Login, LoginError> {
    if let Some((named, user, password)) = environment.login
        && named == registry
    {
        return Ok(Login { user: Some((user, password)), place: USER_VARIABLE.into() });
    }
    if let Some(login) = config.login.as_ref().filter(|login| login.registry == registry) {
        let file = &login.password_file;
        let password = read(file)?;
        let user = (login.user.clone(), password.trim_end_matches(['\r', '\n']).to_owned());
        return Ok(Login { user: Some(user), place: "[oci]".into() });
    }
    let file = match (&config.docker_config, environment.docker_config) {
        (Some(file), _) => file.clone(),
        (None, Some(file)) if file.is_file() => file,
        (None, _) => return Ok(Login { user: None, place: String::new() }),
    };
    let text = read(&file)?;
    of_docker(&text, registry, &file)
}

fn read(file: &Path) -> Result<String, LoginError> {
    let unreadable = |error| LoginError::Unreadable { file: file.into(), error };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other(format!("it has {length} bytes; {FILE_BYTES_MAX} are the most"))));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

/// `config.json` of docker.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct DockerAuth {
    /// User, colon, password, in base64.
    #[serde(default)]
    auth: String,
}

fn of_docker(text: &str, registry: &str, file: &Path) -> Result<Login, LoginError> {
    let wrong = |why: String| LoginError::NotDockers { file: file.into(), why };
    let config: DockerConfig = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let is_it = |key: &&String| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        host == registry || (registry == "docker.io" && host == "index.docker.io")
    };
    let place = file.display().to_string();
    let auth = config.auths.iter().find(|(key, _)| is_it(key)).map(|(_, auth)| auth.auth.as_str());
    if let Some(auth) = auth.filter(|auth| !auth.is_empty()) {
        let decoded = BASE64.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let user = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) =
            user.ok_or_else(|| wrong(format!("\"auth\" of {registry} is not USER:PASSWORD in base64")))?;
        return Ok(Login { user: Some((user.to_owned(), password.to_owned())), place });
    }
    let helper = config.cred_helpers.iter().find(|(key, _)| is_it(key)).map(|(_, helper)| helper.clone());
    let helper = helper.or(config.creds_store);
    let place = helper.map_or_else(String::new, |helper| {
        format!("; {place} leaves logins to docker-credential-{helper}, which is not asked")
    });
    Ok(Login { user: None, place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OciLogin;

    const DOCKERS: &str = r#"{"auths": {"ghcr.io": {"auth": "bWU6YTpi"}, "https://index.docker.io/v1/": {"auth": "eW91OmM="},
        "broken": {"auth": "bWU="}, "kept": {}}, "credHelpers": {"gcr.io": "gcloud"}, "credsStore": "desktop"}"#;

    fn docker(registry: &str) -> Result<Login, LoginError> {
        of_docker(DOCKERS, registry, Path::new("config.json"))
    }

    #[test]
    fn dockers_file_is_read_for_the_registry_that_is_asked() {
        assert_eq!(docker("ghcr.io").unwrap().user, Some(("me".into(), "a:b".into())));
        assert_eq!(docker("docker.io").unwrap().user, Some(("you".into(), "c".into())));
        let other = docker("other").unwrap();
        assert!(other.user.is_none() && other.to_string().contains("docker-credential-desktop"), "{other}");
        assert!(docker("gcr.io").unwrap().to_string().contains("docker-credential-gcloud"));
        assert!(docker("kept").unwrap().user.is_none());
        let error = docker("broken").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("broken") && !error.contains("bWU="), "{error}");
        assert!(of_docker("nonsense", "x", Path::new("config.json")).is_err());
    }

    #[test]
    fn the_environment_is_before_the_configuration_and_that_before_docker() {
        let directory = tempfile::tempdir().unwrap();
        let (password_file, docker_file) = (directory.path().join("password"), directory.path().join("config.json"));
        std::fs::write(&password_file, "hunter2\n").unwrap();
        std::fs::write(&docker_file, DOCKERS).unwrap();
        let login = OciLogin { registry: "ghcr.io".into(), user: "conf".into(), password_file };
        let config = OciConfig {
            login: Some(login),
            docker_config: Some(docker_file.clone()),
            insecure: Vec::new(),
            ca_file: None,
            fetch_timeout_ms: 1_000,
        };
        let set = |registry: &str| Environment {
            login: Some((registry.into(), "env".into(), "x".into())),
            docker_config: None,
        };
        let user = |registry: &str, config: &OciConfig, environment: Environment| {
            find_blocking(registry, config, environment)
                .unwrap()
                .user
                .map(|(user, password)| format!("{user}/{password}"))
        };
        assert_eq!(user("ghcr.io", &config, set("ghcr.io")).as_deref(), Some("env/x"));
        assert_eq!(user("ghcr.io", &config, set("other")).as_deref(), Some("conf/hunter2"));
        assert_eq!(user("docker.io", &config, set("ghcr.io")).as_deref(), Some("you/c"), "a login is for one registry");
        let bare = OciConfig { login: None, docker_config: None, ..config };
        assert_eq!(user("ghcr.io", &bare, Environment::default()), None);
        let of_home = || Environment { login: None, docker_config: Some(docker_file.clone()) };
        assert_eq!(user("ghcr.io", &bare, of_home()).as_deref(), Some("me/a:b"));
        let gone = OciConfig { docker_config: Some("no/such.json".into()), ..bare };
        assert!(find_blocking("ghcr.io", &gone, Environment::default()).is_err());
    }
}
