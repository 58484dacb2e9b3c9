//! The fuzzer's bytes, taken from the front.

/// What is left of an input. Reads beyond the end give zeros.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next `length` bytes, or what is left.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (front, back) = self.0.split_at(length.min(self.0.len()));
        self.0 = back;
        front
    }

    /// A chunk with its length in front, as [`chunk`] writes it.
    pub(crate) fn chunk(&mut self) -> &'a [u8] {
        let length = self.word();
        self.take(length.into())
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// A chunk as [`Bytes::chunk`] reads it.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}
