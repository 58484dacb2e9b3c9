//! The time-stamp counter, and medians over it.

/// The time-stamp counter now. Not serialising: a burst is long against what moves across.
#[cfg(target_arch = "x86_64")]
#[must_use]
#[expect(unsafe_code, reason = "the one instruction that reads the counter")]
pub fn now() -> u64 {
    // SAFETY: every x86-64 CPU has rdtsc, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds where there is no time-stamp counter.
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn now() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Cycles per packet of several named stages.
pub struct Samples {
    names: Vec<&'static str>,
    cycles: Vec<Vec<f64>>,
}

impl Samples {
    /// No samples yet.
    #[must_use]
    pub fn new<const N: usize>(names: [&'static str; N]) -> Self {
        Self {
            names: names.to_vec(),
            cycles: vec![Vec::new(); N],
        }
    }

    /// A stage ran from `start` until now over `packets` packets.
    pub fn add(&mut self, stage: usize, start: u64, packets: usize) {
        let cycles = now() - start;
        self.add_cycles(stage, cycles, packets);
    }

    /// A stage took `cycles` over `packets` packets.
    pub fn add_cycles(&mut self, stage: usize, cycles: u64, packets: usize) {
        self.cycles[stage].push(cycles as f64 / packets as f64);
    }

    /// The median of each stage.
    #[must_use]
    pub fn medians(mut self) -> Vec<(&'static str, f64)> {
        let medians = self.cycles.iter_mut().map(|samples| {
            samples.sort_by(f64::total_cmp);
            samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
        });
        self.names.iter().copied().zip(medians).collect()
    }
}
