//! File systems of a test's own: small ones, and ones that take no writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools;

/// A mounted directory. Dropped, it is what it was before.
#[derive(Debug)]
pub(super) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Memory with so many bytes of room.
    pub(super) fn small(at: &Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(at).with_context(|| format!("can't make {}", at.display()))?;
        let options = format!("size={bytes}");
        mount(&["-t", "tmpfs", "-o", &options, "none"], at)?;
        Ok(Self { at: at.to_owned() })
    }

    /// The directory itself, and nothing in it can be changed.
    pub(super) fn read_only(at: &Path) -> Result<Self> {
        let itself = at.display().to_string();
        mount(&["--bind", &itself], at)?;
        let bound = Self { at: at.to_owned() };
        mount(&["-o", "remount,bind,ro"], at)?;
        Ok(bound)
    }

    /// Takes it away.
    pub(super) fn remove(self) {
        drop(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a host that still runs keeps its files. There is nobody to tell about a failure.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<()> {
    let needs = "needs root, and permission to mount";
    tools::run(needs, Command::new("mount").args(arguments).arg(at)).map(drop)
}
