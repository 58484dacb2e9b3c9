//! Several workers at once on memory ports: what a second core brings.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use xipsec::worker::handoff::Exchange;

use crate::cycles::per_second;
use crate::fleet::Ends;
use crate::pipeline::{Bench, Traffic};
use crate::wire::pin;

/// How the workers are run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many, each on a core of its own.
    pub workers: u16,
    /// How often they are measured; the best counts, since noise only slows.
    pub windows: usize,
    /// How long each time.
    pub window: Duration,
}

/// Packets a second that the workers bring through together. Of each worker only the time inside
/// its rounds counts, since making packets is not its work; the rate is that of all packets over
/// the mean of those times.
///
/// With as many SAs as workers or more each has its own; a single SA has its home on one of them
/// and the others hand its packets over. `ends` serves one call.
///
/// # Panics
/// When a worker does.
#[must_use]
pub fn rate(ends: &Ends, traffic: &Traffic, plan: Plan) -> f64 {
    let workers = usize::from(plan.workers);
    let exchange = || Arc::new(Exchange::new(workers).expect("an event descriptor"));
    let exchanges = &[exchange(), exchange()];
    let barrier = &Barrier::new(workers);
    let measured: Vec<Vec<(u64, usize)>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.workers)
            .map(|number| {
                let of = [number, plan.workers];
                scope.spawn(move || worker(Bench::new(ends, of, exchanges), traffic, plan, barrier))
            })
            .collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|one| one.expect("a worker ended")).collect()
    });
    let rates = (0..plan.windows).map(|window| {
        let cycles: u64 = measured.iter().map(|worker| worker[window].0).sum();
        let packets: usize = measured.iter().map(|worker| worker[window].1).sum();
        packets as f64 * per_second() * f64::from(plan.workers) / cycles as f64
    });
    rates.fold(0.0, f64::max)
}

/// Cycles and packets of each window.
fn worker(
    mut bench: Bench<'_>,
    traffic: &Traffic,
    plan: Plan,
    barrier: &Barrier,
) -> Vec<(u64, usize)> {
    pin(bench.number().into());
    bench.warm_up(traffic);
    let mut bursts = Vec::with_capacity(1 << 20);
    let measure = |_| {
        barrier.wait();
        bursts.clear();
        let start = Instant::now();
        while start.elapsed() < plan.window {
            bursts.push(bench.burst(traffic));
        }
        undisturbed(&mut bursts)
    };
    let windows: Vec<_> = (0..plan.windows).map(measure).collect();
    // What another still waits for may be here.
    barrier.wait();
    windows
}

/// The sums over all bursts but the slowest twentieth: those in which the machine took the core
/// away.
fn undisturbed(bursts: &mut [(u64, usize)]) -> (u64, usize) {
    bursts.sort_unstable();
    let kept = &bursts[..bursts.len() - bursts.len() / 20];
    kept.iter()
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_bursts_do_not_count() {
        let mut bursts = vec![(10, 1); 19];
        bursts.push((1_000_000, 1));
        assert_eq!(undisturbed(&mut bursts), (190, 19));
        assert_eq!(undisturbed(&mut []), (0, 0));
    }
}
