//! The registry that components are pushed to in tests: Debian's package `docker-registry`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use super::{run, target};

/// Debian's package of the registry, and the program in it.
const PACKAGE: &str = "docker-registry";

/// A registry server: one on PATH, else one unpacked under `target/tools`, without root, from Debian's package.
///
/// # Errors
/// There is none, and the package can't be had.
pub fn registry_server() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = found.as_ref() {
        return Ok(path.clone());
    }
    let path = find()?;
    Ok(found.insert(path).clone())
}

fn find() -> Result<PathBuf> {
    let on_path = PathBuf::from(PACKAGE);
    if works(&on_path) {
        return Ok(on_path);
    }
    let directory = target().join("tools").join(PACKAGE);
    let binary = directory.join("usr/bin").join(PACKAGE);
    if !works(&binary) {
        unpack(&directory).with_context(|| {
            format!("there is no {PACKAGE} on PATH, and Debian's package {PACKAGE} can't be unpacked: install it, for example with `apt-get install {PACKAGE}`")
        })?;
        ensure!(works(&binary), "{} does not start", binary.display());
    }
    Ok(binary)
}

fn works(binary: &PathBuf) -> bool {
    run("asking the registry for its version", Command::new(binary).arg("--version")).is_ok()
}

fn unpack(directory: &PathBuf) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let download = || {
        run(
            "downloading the package",
            Command::new("apt-get").current_dir(directory).args(["download", "-qq", PACKAGE]),
        )
    };
    if download().is_err() {
        // Its lists may be missing or old; only root can mend that.
        update_lists()?;
        download()?;
    }
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let files = std::fs::read_dir(directory)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let package = files.filter(is_package).max().context("apt-get has downloaded no package")?;
    run("unpacking the package", Command::new("dpkg").arg("-x").arg(&package).arg(directory))?;
    Ok(())
}

fn update_lists() -> Result<()> {
    let what = "updating the lists of packages (as root or with sudo)";
    let as_root = rustix::process::geteuid().is_root();
    let mut command = if as_root { Command::new("apt-get") } else { Command::new("sudo") };
    if !as_root {
        command.args(["--non-interactive", "apt-get"]);
    }
    run(what, command.args(["update", "-qq"]))?;
    Ok(())
}
