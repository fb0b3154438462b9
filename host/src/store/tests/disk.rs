//! Two disks with one power supply: what was not synced when it goes may be there, in part, or not at all.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

/// A small generator of numbers, so that a seed is all that a failing run needs.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// splitmix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Counts the operations of both disks, and fails all of them from one on.
#[derive(Debug)]
pub(super) struct Power {
    /// Operations until it fails; none: it doesn't.
    left: Mutex<Option<u64>>,
}

impl Power {
    pub(super) fn steady() -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(None) })
    }

    pub(super) fn fail_after(&self, operations: u64) {
        *self.left.lock() = Some(operations);
    }

    pub(super) fn is_gone(&self) -> bool {
        *self.left.lock() == Some(0)
    }

    fn use_once(&self) -> io::Result<()> {
        match self.left.lock().as_mut() {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(io::Error::other("the power goes")) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Default)]
struct Content {
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    seen: Vec<u8>,
}

/// One disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    content: Arc<Mutex<Content>>,
    power: Arc<Power>,
}

const SECTOR: usize = 512;

impl Disk {
    pub(super) fn new(content: Vec<u8>, power: Arc<Power>) -> Self {
        let content = Content { synced: content.clone(), unsynced: Vec::new(), seen: content };
        Self { content: Arc::new(Mutex::new(content)), power }
    }

    /// What the operating system shows: every write that was made.
    pub(super) fn seen(&self) -> Vec<u8> {
        self.content.lock().seen.clone()
    }

    /// What a disk may hold after the power went: all that was synced, and of what was not some sectors of some writes.
    pub(super) fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        let content = self.content.lock();
        let mut image = content.synced.clone();
        // How much gets through differs from crash to crash; "all" and "nothing" must be among it.
        let through = random.below(5);
        for operation in &content.unsynced {
            match operation {
                Unsynced::SetLen(length) => {
                    // The length is metadata, which file systems keep in order with the data that needs it: it may be late, but a later write
                    // beyond the end extends the file again.
                    if random.below(4) < through {
                        image.resize(*length as usize, 0);
                    }
                }
                Unsynced::Write(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if random.below(4) < through {
                            put(&mut image, *offset as usize + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        image
    }
}

fn put(image: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[at..end].copy_from_slice(data);
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.content.lock();
        let from = content.seen.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power.use_once()?;
        let mut content = self.content.lock();
        content.seen.resize(len as usize, 0);
        content.unsynced.push(Unsynced::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.power.use_once()?;
        let mut content = self.content.lock();
        content.synced = content.seen.clone();
        content.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.power.use_once()?;
        let mut content = self.content.lock();
        put(&mut content.seen, offset as usize, data);
        content.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }
}
