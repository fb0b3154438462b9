//! How many instances may be there at once. The pool would answer one too many with an error; here it waits for its turn.

use parking_lot::{Condvar, Mutex};

pub(super) struct Gate {
    free: Mutex<u32>,
    freed: Condvar,
}

/// The right to one instance; given back on drop.
pub(super) struct Permit<'a>(&'a Gate);

impl Gate {
    pub(super) fn new(permits: u32) -> Self {
        Self { free: Mutex::new(permits), freed: Condvar::new() }
    }

    /// Waits for a permit. Attempts end in bounded time, so this does.
    pub(super) fn enter(&self) -> Permit<'_> {
        let mut free = self.free.lock();
        while *free == 0 {
            self.freed.wait(&mut free);
        }
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}
