//! Numbered places of one type: they come as they are needed, go round, and are never given back.

/// "No place": the end of a chain.
pub(super) const NONE: u32 = u32::MAX;

/// Places made at once. Memory that no fragment ever needed is not touched.
const CHUNK: usize = 64;

/// Up to `limit` places. Once as many have been in use as ever will be, nothing is allocated.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Box<[T]>>,
    free: Vec<u32>,
    limit: usize,
}

impl<T: Clone + Default> Slab<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            limit: limit.min(NONE as usize),
        }
    }

    /// Places that could still be taken.
    pub(super) fn room(&self) -> usize {
        self.limit - (self.chunks.len() * CHUNK).min(self.limit) + self.free.len()
    }

    /// Chunks made so far.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// A place with whatever its last user left in it; `None` when all are taken.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            self.grow();
        }
        self.free.pop()
    }

    fn grow(&mut self) {
        let made = self.chunks.len() * CHUNK;
        let count = CHUNK.min(self.limit.saturating_sub(made));
        if count == 0 {
            return;
        }
        self.chunks
            .push(vec![T::default(); count].into_boxed_slice());
        // All places that there are may come back.
        self.free.reserve(made + count);
        let places = (made..made + count).rev();
        self.free
            .extend(places.filter_map(|place| u32::try_from(place).ok()));
    }

    pub(super) fn give_back(&mut self, place: u32) {
        debug_assert!(
            self.free.len() < self.chunks.len() * CHUNK,
            "given back twice"
        );
        self.free.push(place);
    }

    /// The content of a place that was taken.
    pub(super) fn at(&self, place: u32) -> &T {
        let place = place as usize;
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    /// The same, to be changed.
    pub(super) fn at_mut(&mut self, place: u32) -> &mut T {
        let place = place as usize;
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }
}
