//! Asking for memory before it is needed.
//!
//! A packet of one SA among a million finds nothing of it in a cache: policy, SA, state and keys
//! are some twenty lines at random places. Stages ask for those of a whole batch first, so that
//! the waits overlap, and do their work in a second pass. Nothing that is asked for is looked at:
//! a wrong guess costs a line, never an answer.

/// Bytes that the CPU fetches together.
const LINE: usize = 64;

/// Asks for the line in which `value` begins.
#[inline(always)]
pub(crate) fn first_line<T: ?Sized>(value: &T) {
    line(std::ptr::from_ref(value).cast());
}

/// Asks for all of `value`, boxes and vectors in it apart.
#[inline(always)]
pub(crate) fn all<T>(value: &T) {
    slice(std::slice::from_ref(value));
}

/// [`all`] for each of `values`.
#[inline(always)]
pub(crate) fn slice<T>(values: &[T]) {
    let start: *const u8 = values.as_ptr().cast();
    // From the line that holds the first byte to the one that holds the last.
    let within = start.addr() % LINE;
    for offset in (0..within + size_of_val(values)).step_by(LINE) {
        line(start.wrapping_sub(within).wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the instruction takes a bare pointer")]
#[inline(always)]
fn line(address: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86-64, and a prefetch reads nothing that a program can see: it
    // faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line(_: *const u8) {}
