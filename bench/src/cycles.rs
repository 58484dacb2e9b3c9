//! The time-stamp counter, and medians over it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

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

/// The least of the medians of equal parts of `samples`, in their order. Noise of the machine only
/// adds, and comes in spells: the quietest part is the nearest to the truth, its median is not a
/// lucky stroke. NaN for no samples.
#[must_use]
pub fn quietest_median(samples: &[f64]) -> f64 {
    /// Parts: enough for one to be quiet, and each still with enough samples for a median.
    const PARTS: usize = 9;
    let size = samples.len().div_ceil(PARTS).max(1);
    let medians = samples.chunks(size).map(|part| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        part[part.len() / 2]
    });
    medians.min_by(f64::total_cmp).unwrap_or(f64::NAN)
}

/// Ticks of [`now`] in a second, measured once against the system's clock.
#[must_use]
pub fn per_second() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (start, cycles) = (Instant::now(), now());
        std::thread::sleep(Duration::from_millis(100));
        // Cycles first: what comes between the two readings then errs to one side both times.
        let cycles = now() - cycles;
        cycles as f64 / start.elapsed().as_secs_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quietest_part_decides() {
        let mut samples = vec![100.0; 90];
        samples[40..50].fill(10.0);
        assert!((quietest_median(&samples) - 10.0).abs() < f64::EPSILON);
        assert!((quietest_median(&[7.0]) - 7.0).abs() < f64::EPSILON);
        assert!(quietest_median(&[]).is_nan());
    }
}
