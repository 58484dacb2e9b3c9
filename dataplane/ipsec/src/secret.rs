//! Keys that zeroise themselves and cannot be printed, cloned or compared by accident.
//!
//! [`Secret`] holds key bytes as they come from configuration. [`Sealed`] holds a library's key
//! object whose own destructor leaves the key in memory (ring's keys do).

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;

use zeroize::{Zeroize, Zeroizing};

/// Raw key bytes. `Debug` shows the length alone; the bytes are wiped on drop. A pointer long, and
/// nothing behind it for no key: every SA of a running gateway holds two of those.
#[derive(Default)]
pub struct Secret(Option<Box<Zeroizing<Vec<u8>>>>);

impl Secret {
    /// Takes over `bytes`; the caller's vector becomes the secret, nothing is copied.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let is_some = !bytes.is_empty();
        Self(is_some.then(|| Box::new(Zeroizing::new(bytes))))
    }

    /// The key bytes. Whoever calls this must not let them reach any output.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes.as_slice())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// True for the key of an algorithm that has none (`null`).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A second copy, for the one caller that must keep the configuration and build an SA from it.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.expose().to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.len())
    }
}

/// A value whose storage is overwritten when it is dropped, after its own destructor ran.
///
/// For key objects of libraries that do not wipe themselves. The value is boxed, so that moving
/// the `Sealed` leaves no copy of the key behind on a stack.
pub struct Sealed<T>(Box<MaybeUninit<T>>);

impl<T> Sealed<T> {
    /// Seals `value`. The caller's copy on the stack is a move away; build it in the call.
    pub fn new(value: T) -> Self {
        Self(Box::new(MaybeUninit::new(value)))
    }
}

#[expect(
    unsafe_code,
    reason = "wiping a library's key object needs its raw storage"
)]
impl<T> Deref for Sealed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` initialised the value, and only `drop` ends it.
        unsafe { self.0.assume_init_ref() }
    }
}

#[expect(
    unsafe_code,
    reason = "wiping a library's key object needs its raw storage"
)]
impl<T> Drop for Sealed<T> {
    fn drop(&mut self) {
        // SAFETY: `new` initialised the value, and nobody uses it after this.
        unsafe { self.0.assume_init_drop() };
        // SAFETY: MaybeUninit<T> may hold any bytes, and the value has just ended.
        let storage = unsafe {
            std::slice::from_raw_parts_mut(
                self.0.as_mut_ptr().cast::<MaybeUninit<u8>>(),
                size_of::<T>(),
            )
        };
        storage.zeroize();
    }
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_its_length_alone() {
        let secret = Secret::new(vec![0xab; 20]);
        assert_eq!(format!("{secret:?}"), "Secret(20 bytes)");
        assert_eq!(format!("{:?}", Sealed::new([0xab_u8; 4])), "Sealed");
    }

    #[test]
    fn a_sealed_value_is_used_through_deref() {
        let sealed = Sealed::new(String::from("value"));
        assert_eq!(sealed.len(), 5);
    }
}
