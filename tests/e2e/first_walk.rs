//! The first-time walk, exactly as the README tells it: the commands and the file are taken out of its section, so the README can't say what doesn't work.
//!
//! Three things are done otherwise, for the sake of the tests beside this one: it happens in a directory of its own (`cd ..`), the server and the admin
//! address have free ports, and what is compiled for the plug-in is kept from one run to the next.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pelton_tests::process::{Process, children_of};
use pelton_tests::{tools, wait};
use rustix::process::Signal;

use crate::authors::text;

/// The first build compiles the sdk and what it needs.
const BUILT: Duration = Duration::from_secs(900);
/// What takes a moment, on a busy machine.
const SOON: Duration = Duration::from_secs(120);

/// What the section of the README holds.
struct Section {
    /// The lines that are typed, without their comments, in order.
    commands: Vec<String>,
    /// The program that is written down.
    publish: String,
}

impl Section {
    fn read() -> Result<Self> {
        let readme = std::fs::read_to_string(tools::root().join("README.md"))?;
        let (_, rest) = readme.split_once("\n## A first plug-in, from nothing\n").context("the section")?;
        let (section, _) = rest.split_once("\n## ").context("a section behind it")?;
        let (before, rest) = section.split_once("`publish.py`:\n\n```python\n").context("publish.py")?;
        let (publish, after) = rest.split_once("```\n").context("its end")?;
        let commands = before.lines().chain(after.lines()).filter_map(|line| line.strip_prefix("    "));
        let commands = commands.map(|line| line.split("   # ").next().unwrap_or(line).trim_end().to_owned());
        Ok(Self { commands: commands.collect(), publish: publish.to_owned() })
    }
}

/// The terminals.
struct Walk {
    directory: PathBuf,
    /// What was exported and where one is, for the commands that follow.
    before: Vec<String>,
    python_path: PathBuf,
    port: u16,
}

impl Walk {
    fn command(&self, line: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.arg("-euc").arg(format!("{}\nexec {line}", self.before.join("\n"))).current_dir(tools::root());
        bash.env("PYTHONPATH", &self.python_path).env("NO_COLOR", "1").env_remove("PELTON_LOG");
        bash
    }

    fn run(&self, line: &str) -> Result<Output> {
        self.command(line).output().with_context(|| format!("can't run {line}"))
    }

    fn must(&self, line: &str) -> Result<String> {
        let output = self.run(line)?;
        let out = text(&output.stdout);
        ensure!(output.status.success(), "{line}: {}\n{out}{}", output.status, text(&output.stderr));
        Ok(out)
    }

    fn go(&mut self, line: &str) {
        self.before.push(line.to_owned());
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.join("regulars").join(below)
    }

    /// Ports of its own, and a place for what is compiled that outlives the test.
    fn settle(&self) -> Result<()> {
        let file = self.path("pelton.toml");
        let config = std::fs::read_to_string(&file)?.replace("port = 4222", &format!("port = {}", self.port));
        std::fs::write(&file, format!("{config}\n[admin]\naddress = \"127.0.0.1:0\"\n"))?;
        let target = tools::target().join("first-walk");
        std::fs::create_dir_all(&target)?;
        std::os::unix::fs::symlink(&target, self.path("target"))?;
        Ok(())
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until the log of `pelton dev` holds a text so many times.
async fn shows(log: &Path, what: &str, times: usize, limit: Duration) -> Result<()> {
    let read = || std::fs::read_to_string(log).unwrap_or_default();
    let waiting = wait::until(what, limit, || async { Ok((read().matches(what).count() >= times).then_some(())) });
    waiting.await.with_context(|| format!("pelton dev shows:\n{}", read()))
}

#[tokio::test]
async fn the_first_walk_goes_as_the_readme_tells_it() -> Result<()> {
    let Section { commands, publish } = Section::read()?;
    let temporary = tempfile::tempdir()?;
    let directory = temporary.path().to_path_buf();
    let log = directory.join("dev.log");
    // The binary that the README finds in target/release, and a server wherever the tests have theirs.
    let binary = tools::host(tools::HostBuild::Normal)?;
    let server = tools::nats_server()?;
    let mut walk =
        Walk { directory: directory.clone(), before: Vec::new(), python_path: tools::nats_py()?, port: free_port()? };
    let mut commands = commands.iter().map(String::as_str);
    let mut next = |wanted: &str| -> Result<String> {
        let line = commands.next().unwrap_or_default();
        ensure!(
            line.starts_with(wanted),
            "the README goes on with {line:?}, and this test with {wanted:?}: bring them together"
        );
        Ok(line.to_owned())
    };

    walk.go(&next("export PATH=\"$PWD/target/release:$PATH\"")?);
    walk.go(&format!("export PATH={}:\"$PATH\"", binary.parent().context("a directory")?.display()));
    walk.go(&next("export PELTON_NATS_SERVER=")?);
    walk.go(&format!("export PELTON_NATS_SERVER={}", server.display()));
    next("cd ..")?;
    walk.go(&format!("cd {}", directory.display()));
    let made = walk.must(&next("pelton new regulars")?)?;
    assert!(made.contains("made regulars with pelton-sdk from "), "{made}");
    walk.go(&next("cd regulars")?);
    walk.settle()?;
    std::fs::write(walk.path("publish.py"), publish.replace("4222", &walk.port.to_string()))?;
    let mut dev = Process::spawn("pelton dev", &mut walk.command(&next("pelton dev")?), &log)?;
    shows(&log, "deployed consumer=\"regulars\"", 1, BUILT).await?;

    let alice = next("python3 publish.py alice")?;
    assert_eq!(walk.must(&alice)?, "regulars.alice b'3'\n");
    shows(&log, "state   orders: 2 -> 3\n  event   regulars.alice: 3\n  applied by version", 1, SOON).await?;
    walk.must(&alice)?;
    let again = std::fs::read_to_string(&log)?;
    assert!(!again.contains("orders: 3 -> 4"), "{again}");

    walk.must(&next("sed -i 's/unwrap_or(3)/unwrap_or(2)/' src/lib.rs")?)?;
    shows(&log, "deployed consumer=\"regulars\"", 2, BUILT).await?;
    assert_eq!(walk.must(&next("python3 publish.py bob")?)?, "regulars.bob b'2'\n");

    let tested = walk.run(&next("pelton test")?)?;
    assert_eq!(tested.status.code(), Some(1), "{}", text(&tested.stderr));
    assert!(
        text(&tested.stdout).contains("case the third order makes a regular ... FAILED"),
        "{}",
        text(&tested.stdout)
    );
    walk.must(&next("sed -i")?)?;
    let tested = walk.must(&next("pelton test")?)?;
    assert!(tested.contains("result: ok. 1 passed, 0 failed"), "{tested}");

    walk.must(&next("pelton deploy --plan")?)?;
    walk.must(&next("pelton deploy")?)?;
    let back = walk.must(&next("pelton rollback regulars")?)?;
    assert!(back.contains("is taken back"), "{back}");
    assert_eq!(walk.must(&next("python3 publish.py carol")?)?, "regulars.carol b'3'\n");
    assert!(commands.next().is_none(), "the README tells more than this test does");

    a_broken_build_is_shown_and_the_version_before_goes_on(&walk, &log).await?;
    let servers = children_of(dev.pid());
    dev.signal(Signal::INT)?;
    assert!(dev.wait(SOON).await?.success(), "{}", std::fs::read_to_string(&log)?);
    assert!(servers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "the server is left behind");
    Ok(())
}

async fn a_broken_build_is_shown_and_the_version_before_goes_on(walk: &Walk, log: &Path) -> Result<()> {
    let source = walk.path("src/lib.rs");
    let sound = std::fs::read_to_string(&source)?;
    std::fs::write(&source, format!("{sound}\nthis is no Rust\n"))?;
    shows(log, "the version before goes on", 1, BUILT).await?;
    shows(log, "error: ", 1, SOON).await?;
    // Also the one that was brought back.
    assert_eq!(walk.must("python3 publish.py dave")?, "regulars.dave b'3'\n");
    Ok(())
}
