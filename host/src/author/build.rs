//! `pelton build`: makes the component, and says what it is and whether the host would take it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow, bail};

use super::bench::{Bench, Terms};
use super::project::{Project, component_file, read_component};

/// What Rust plug-ins are compiled to.
const RUST_TARGET: &str = "wasm32-wasip2";

/// Builds the plug-in of a directory, and tells of each consumer's component in `out`. What the compiler says goes where the process' own errors go.
///
/// # Errors
/// [`super::BadInput`] or a [`crate::config::Report`] if the directory can't be used; or something is missing, the build fails, or the component is not
/// one that the host would take.
pub fn build(directory: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let project = Project::open(directory)?;
    compile(directory)?;
    describe(&project, out)
}

/// Runs the compiler, if the directory holds what it knows to compile. A plug-in in another language is built by its own tools.
///
/// # Errors
/// What is missing, or that the build failed.
pub(super) fn compile(directory: &Path) -> anyhow::Result<()> {
    if !directory.join("Cargo.toml").is_file() {
        return Ok(());
    }
    check_rust_target()?;
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--target", RUST_TARGET]).current_dir(directory);
    // The manifest says where the component is: in the place where Cargo puts it if nobody says otherwise.
    cargo.env_remove("CARGO_TARGET_DIR");
    let status = cargo.stdin(Stdio::null()).status().context(NO_CARGO)?;
    if !status.success() {
        bail!("the build failed: see the compiler's messages above");
    }
    Ok(())
}

const NO_CARGO: &str = "cargo can't be started: install Rust from https://rustup.rs";

/// Cargo, without what a Cargo that started this process has set for its own crate.
fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|prefix| text.starts_with(prefix))
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// The compiler's own message for a target that is not installed is long and names none of this.
fn check_rust_target() -> anyhow::Result<()> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", RUST_TARGET]);
    let printed = rustc.output().context("rustc can't be started: install Rust from https://rustup.rs")?;
    let directory = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim());
    if printed.status.success() && directory.is_dir() {
        return Ok(());
    }
    Err(anyhow!("the Rust target {RUST_TARGET} is missing: run `rustup target add {RUST_TARGET}`"))
}

fn describe(project: &Project, out: &mut dyn Write) -> anyhow::Result<()> {
    let bench = Bench::new(project.component_bytes_max)?;
    for manifest in &project.manifests {
        let path = component_file(manifest)?;
        let bytes = read_component(path, project.component_bytes_max)?;
        let terms = Terms::Manifest(Box::new(manifest.clone()));
        let plugin = bench
            .load(&bytes, &terms)
            .with_context(|| format!("consumer {} would be refused: component {}", manifest.name, path.display()))?;
        writeln!(out, "consumer   {}", manifest.name)?;
        writeln!(out, "component  {}", path.display())?;
        writeln!(out, "size       {} bytes", bytes.len())?;
        writeln!(out, "digest     sha256:{}", plugin.version())?;
        for (index, import) in plugin.imports().iter().enumerate() {
            writeln!(out, "{} {import}", if index == 0 { "imports   " } else { "          " })?;
        }
        writeln!(out, "verified   the host would take it")?;
    }
    Ok(())
}
