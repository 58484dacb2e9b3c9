//! The system's allocator with counters: for the proof that nothing on the packet path allocates,
//! and for what an idle SA takes.
#![expect(unsafe_code, reason = "an allocator that counts is `unsafe` to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counting for the calling thread. A program that wants the counts makes
/// it its `#[global_allocator]`.
pub struct Counting;

/// Allocations that the calling thread has made.
#[must_use]
pub fn count() -> u64 {
    COUNT.with(Cell::get)
}

/// Bytes that the calling thread has allocated less those that it has freed, as asked for: without
/// what the allocator itself adds.
#[must_use]
pub fn live_bytes() -> i64 {
    BYTES.with(Cell::get)
}

fn note(allocations: u64, bytes: i64) {
    // A thread that is ending has no counters any more, and no packets.
    COUNT
        .try_with(|count| count.set(count.get() + allocations))
        .unwrap_or_default();
    BYTES
        .try_with(|live| live.set(live.get() + bytes))
        .unwrap_or_default();
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

// SAFETY: every call goes to the system's allocator unchanged; the counters themselves allocate
// nothing, since they are initialised at compile time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, -signed(layout.size()));
        // SAFETY: `pointer` came from the system's allocator with `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, signed(size) - signed(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
