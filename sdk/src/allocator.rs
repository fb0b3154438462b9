//! The global allocator of a plug-in: memory that the instance starts with first, std's allocator after that.
//!
//! Why it is here: each attempt gets a fresh instance, and an instance whose memory grows during the call is several times as dear
//! as one whose memory doesn't (growing means a system call in the host, and with several threads a wait for each other).
//! So the first [`ARENA_BYTES`] come from a static array, which costs nothing until it is touched.
//!
//! Always holds: a block that lies in the arena was made by it and is given back to it; any other was made by std's allocator. The arena only
//! takes back its newest block, which is what short-lived strings and growing vectors need. What it doesn't take back stays used until
//! the instance ends; an instance that is reused merely goes over to std's allocator once the arena is full.

#![allow(unsafe_code, reason = "a global allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

/// Memory that is served without growing the instance's, in bytes.
const ARENA_BYTES: usize = 512 * 1024;

/// The most that any alignment can ask of the arena, in bytes; what asks for more goes to std's allocator.
const ALIGNMENT_MAX: usize = 16;

#[repr(align(16))]
struct Bytes(UnsafeCell<[u8; ARENA_BYTES]>);

/// The arena and how much of it is used.
pub(crate) struct Arena {
    bytes: Bytes,
    used: Cell<usize>,
}

// SAFETY: a Wasm instance without shared memory has one thread, and only there is an arena a static.
#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) const fn new() -> Self {
        Self { bytes: Bytes(UnsafeCell::new([0; ARENA_BYTES])), used: Cell::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.bytes.0.get().cast()
    }

    /// Where in the arena a block begins; none if it isn't one of the arena's.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        block.addr().checked_sub(self.base().addr()).filter(|offset| *offset < ARENA_BYTES)
    }

    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if layout.align() > ALIGNMENT_MAX {
            return None;
        }
        let start = self.used.get().next_multiple_of(layout.align());
        let end = start.checked_add(layout.size()).filter(|end| *end <= ARENA_BYTES)?;
        if start == ARENA_BYTES {
            // A block of no bytes at the very end would not be known again as the arena's.
            return None;
        }
        self.used.set(end);
        // SAFETY: `start` lies within the arena, as was just compared.
        Some(unsafe { self.base().add(start) })
    }
}

// SAFETY: blocks never overlap, since `used` only falls when the newest block is given back; each lies wholly in the arena or
// comes from `System`; and alignments up to that of the arena itself are kept by rounding the offset.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(start) if start + layout.size() == self.used.get() => self.used.set(start),
            Some(_) => {}
            // SAFETY: what doesn't lie in the arena came from `System` with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.offset(block) else {
            // SAFETY: what doesn't lie in the arena came from `System` with this layout.
            return unsafe { System.realloc(block, layout, size) };
        };
        let is_newest = start + layout.size() == self.used.get();
        if is_newest && let Some(end) = start.checked_add(size).filter(|end| *end <= ARENA_BYTES) {
            self.used.set(end);
            return block;
        }
        // SAFETY: the caller promises that `size`, rounded up to this alignment, does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller promises that `size` is not 0.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks hold that many bytes, and a new block never overlaps a live one.
            unsafe { std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            // SAFETY: the block is live and has this layout.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    #[test]
    fn blocks_are_aligned_and_do_not_overlap() {
        let arena = Box::new(Arena::new());
        let mut end = 0;
        for (size, align) in [(3, 1), (8, 8), (1, 1), (16, 16), (5, 4)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            let block = arena.take(layout).unwrap();
            assert!(block.addr().is_multiple_of(align) && block.addr() >= end);
            end = block.addr() + size;
        }
    }

    #[test]
    fn the_newest_block_grows_in_place_and_is_given_back() {
        let arena = Box::new(Arena::new());
        // SAFETY: each block is used with the layout that it was made with, and not after it was given back.
        unsafe {
            let first = arena.alloc(bytes(10));
            let second = arena.alloc(bytes(10));
            assert_eq!(arena.realloc(second, bytes(10), 100), second);
            assert_eq!(arena.used.get(), 110);
            arena.dealloc(second, bytes(100));
            assert_eq!(arena.used.get(), 10);
            first.write_bytes(7, 10);
            arena.alloc(bytes(1));
            let moved = arena.realloc(first, bytes(10), 20);
            assert!(moved != first && std::slice::from_raw_parts(moved, 10).iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_std_and_goes_back_there() {
        let arena = Box::new(Arena::new());
        // SAFETY: as above.
        unsafe {
            let small = arena.alloc(bytes(8));
            small.write_bytes(9, 8);
            let large = arena.realloc(small, bytes(8), ARENA_BYTES + 1);
            assert_eq!((arena.offset(large), *large), (None, 9));
            let larger = arena.realloc(large, bytes(ARENA_BYTES + 1), 2 * ARENA_BYTES);
            assert_eq!((arena.offset(larger), *larger), (None, 9));
            arena.dealloc(larger, bytes(2 * ARENA_BYTES));
            let aligned = Layout::from_size_align(64, 4096).unwrap();
            let page = arena.alloc(aligned);
            assert!(arena.offset(page).is_none() && page.addr().is_multiple_of(4096));
            arena.dealloc(page, aligned);
            assert!(arena.take(bytes(ARENA_BYTES)).is_some() && arena.take(bytes(1)).is_none());
        }
    }
}
