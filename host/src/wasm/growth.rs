//! How much an instance may grow: linear memory and tables. Remembers what was refused, so that the trap that follows gets its true name.

use wasmtime::ResourceLimiter;

/// Elements that one table may hold. A table element is a pointer of the host's memory.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// A growth that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Linear memory, past this many bytes.
    Memory(usize),
    /// A table, past this many elements.
    Table(usize),
}

/// The limits of one instance and what it uses of them.
pub(super) struct Growth {
    memory_bytes_max: usize,
    memory_bytes: usize,
    refused: Option<Refused>,
}

impl Growth {
    pub(super) fn new(memory_bytes_max: usize) -> Self {
        Self { memory_bytes_max, memory_bytes: 0, refused: None }
    }

    /// Linear memory that the instance has, in bytes: it never shrinks.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// That of the instance's next attempt, under the same limits: what it has it keeps, and what was refused before explains nothing.
    pub(super) fn go_on(&self) -> Self {
        Self { refused: None, ..*self }
    }

    /// The last growth that was refused.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let in_all = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        if in_all > self.memory_bytes_max {
            self.refused = Some(Refused::Memory(self.memory_bytes_max));
            return Ok(false);
        }
        self.memory_bytes = in_all;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            self.refused = Some(Refused::Table(TABLE_ELEMENTS_MAX));
            return Ok(false);
        }
        Ok(true)
    }
}
