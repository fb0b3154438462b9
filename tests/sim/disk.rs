//! The disk of the host, and how it ends what is written to it.

use pelton::store::{OpenError, Opened, Settings, SimulatedDisk, create_simulated, open_simulated};
use pelton_core::time::Now;

use crate::chance::Chance;
use crate::trouble::End;
use crate::violation::{Broken, Checked, Violation};

/// The disk, what is planned for it, and whether there is room on it.
pub(crate) struct Disks {
    disk: SimulatedDisk,
    settings: Settings,
    /// What it stands for when an operation fails.
    planned: Option<End>,
    full: bool,
}

/// Ids are kept for longer than any run takes.
const PROCESSED_IDS_MS: u64 = 1 << 40;

impl Disks {
    /// A disk with a new store on it.
    pub(crate) fn new(seed: u64) -> Checked<Self> {
        let settings =
            Settings { directory: "simulated".into(), cache_bytes: 8 << 20, processed_ids_ms: PROCESSED_IDS_MS };
        let disk = SimulatedDisk::new();
        create_simulated(&disk, &settings, seed)
            .map_err(|error| Violation { broken: Broken::Recovered, what: format!("no store can be made: {error}") })?;
        Ok(Self { disk, settings, planned: None, full: false })
    }

    pub(crate) fn open(&self, now: Now) -> Result<Opened, OpenError> {
        open_simulated(&self.disk, &self.settings, now)
    }

    /// The operation of this number from now on fails, and with it the host ends in this way.
    pub(crate) fn end_after(&mut self, end: End, operations: u64) {
        if !self.full {
            self.planned = Some(end);
            self.disk.fail_after(operations);
        }
    }

    /// Whether an operation has failed.
    pub(crate) fn is_down(&self) -> bool {
        self.disk.has_failed()
    }

    /// How the host ends because of it.
    pub(crate) fn end(&mut self) -> End {
        self.planned.take().unwrap_or(End::IoError)
    }

    /// After the host has ended. A store that is still open can do nothing more.
    pub(crate) fn restart(&mut self, end: End, chance: &mut Chance) {
        self.planned = None;
        match end {
            End::PowerLoss => self.disk.power_loss(|below| chance.below(below)),
            End::Crash | End::IoError => self.disk.process_death(),
        }
        if self.full {
            self.disk.fail_after(1);
        }
    }

    /// There is no room any more.
    pub(crate) fn fill(&mut self) {
        self.full = true;
        self.planned = Some(End::IoError);
        self.disk.fail_after(1);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// There is room again. A host that lives and has not written anything meanwhile still gets the error.
    pub(crate) fn has_room(&mut self, host_lives: bool) {
        if std::mem::take(&mut self.full) && !host_lives {
            self.disk.process_death();
        }
    }
}
