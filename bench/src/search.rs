//! The highest rates at which a device still loses nothing, or next to nothing: the non-drop rate
//! (NDR) and the partial drop rate (PDR), found by bounded binary search (RFC 2544 §26.1; the two
//! names and the repetition of trials as in the benchmarks of FD.io CSIT).
//!
//! On a machine that others use too a single trial says little. A load is passed when most of its
//! trials are.

/// A share of lost frames that may not be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// None.
    Ndr,
    /// One in two hundred.
    Pdr,
}

impl Goal {
    /// The share.
    #[must_use]
    pub const fn loss(self) -> f64 {
        match self {
            Self::Ndr => 0.0,
            Self::Pdr => 0.005,
        }
    }
}

/// What one trial brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Frames a second that were asked for.
    pub load: f64,
    /// Frames a second that were sent.
    pub sent: f64,
    /// Frames a second that arrived.
    pub received: f64,
}

impl Trial {
    /// The share of frames that did not arrive.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.sent > 0.0 {
            (1.0 - self.received / self.sent).max(0.0)
        } else {
            1.0
        }
    }
}

/// Bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The highest load, frames a second: what the source can send.
    pub ceiling: f64,
    /// The search ends when the bounds are as close, as a share of the upper one.
    pub precision: f64,
    /// Trials of a load, at most; most of them decide.
    pub trials: usize,
    /// Loads, at most.
    pub loads: usize,
}

/// All trials of a device at one frame size.
#[derive(Debug, Default)]
pub struct Search {
    /// In the order in which they were made.
    pub trials: Vec<Trial>,
}

impl Search {
    /// The highest load found that meets `goal`, frames a second as they were sent; 0 when none
    /// does. `run` makes a trial at a load. Trials made for one goal serve the next.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn find<E>(
        &mut self,
        goal: Goal,
        bounds: Bounds,
        mut run: impl FnMut(f64) -> Result<Trial, E>,
    ) -> Result<f64, E> {
        if self.passes(bounds.ceiling, goal, bounds.trials, &mut run)? {
            return Ok(self.rate(bounds.ceiling));
        }
        let (mut low, mut high) = (0.0, bounds.ceiling);
        for load in self.loads() {
            match self.verdict(load, goal, bounds.trials) {
                Some(true) => low = f64::max(low, load),
                Some(false) => high = f64::min(high, load),
                None => {}
            }
        }
        for _ in 0..bounds.loads {
            if high - low <= bounds.precision * high || low >= high {
                break;
            }
            let middle = f64::midpoint(low, high);
            if self.passes(middle, goal, bounds.trials, &mut run)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(self.rate(low))
    }

    /// Makes trials at a load until most of them must agree.
    fn passes<E>(
        &mut self,
        load: f64,
        goal: Goal,
        trials: usize,
        run: &mut impl FnMut(f64) -> Result<Trial, E>,
    ) -> Result<bool, E> {
        loop {
            if let Some(verdict) = self.verdict(load, goal, trials) {
                return Ok(verdict);
            }
            let trial = run(load)?;
            self.trials.push(Trial { load, ..trial });
        }
    }

    /// Whether most of the trials of a load pass, once that is certain.
    fn verdict(&self, load: f64, goal: Goal, trials: usize) -> Option<bool> {
        let most = trials / 2 + 1;
        let of_load = || self.at(load);
        let passed = of_load().filter(|it| it.loss() <= goal.loss()).count();
        let failed = of_load().count() - passed;
        match () {
            () if passed >= most => Some(true),
            () if failed >= most => Some(false),
            () => None,
        }
    }

    fn at(&self, load: f64) -> impl Iterator<Item = &Trial> {
        self.trials
            .iter()
            .filter(move |trial| trial.load.total_cmp(&load).is_eq())
    }

    fn loads(&self) -> Vec<f64> {
        let mut loads: Vec<f64> = self.trials.iter().map(|trial| trial.load).collect();
        loads.dedup();
        loads
    }

    /// What was really sent at a load: a source that cannot keep up must not look fast.
    fn rate(&self, load: f64) -> f64 {
        let sent = self.at(load).map(|trial| trial.sent);
        sent.fold(f64::INFINITY, f64::min).min(load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        ceiling: 1_000_000.0,
        precision: 0.01,
        trials: 3,
        loads: 20,
    };

    /// A device that forwards up to `capacity` and loses what is beyond.
    fn device(capacity: f64) -> impl FnMut(f64) -> Result<Trial, ()> {
        move |load| {
            let received = load.min(capacity);
            Ok(Trial {
                load,
                sent: load,
                received,
            })
        }
    }

    #[test]
    fn both_rates_of_a_model_are_found_within_the_precision() {
        for capacity in [900_000.0, 312_345.0, 20_000.0] {
            let mut search = Search::default();
            let ndr = search.find(Goal::Ndr, BOUNDS, device(capacity));
            let ndr = ndr.unwrap_or_default();
            assert!(
                ndr <= capacity && ndr >= capacity * 0.985,
                "{capacity}: {ndr}"
            );
            let before = search.trials.len();
            let pdr = search.find(Goal::Pdr, BOUNDS, device(capacity));
            let (pdr, true_pdr) = (pdr.unwrap_or_default(), capacity / 0.995);
            assert!(pdr >= ndr && pdr <= true_pdr + 1.0, "{capacity}: {pdr}");
            assert!(pdr >= true_pdr * 0.985, "{capacity}: {pdr}");
            let more = search.trials.len() - before;
            assert!(more < before, "trials of the first search serve the second");
        }
    }

    #[test]
    fn a_device_that_keeps_up_is_as_fast_as_the_source() {
        let mut search = Search::default();
        let ndr = search.find(Goal::Ndr, BOUNDS, device(2e6));
        assert_eq!(ndr, Ok(1e6));
        assert_eq!(search.trials.len(), 2, "two of three decide");
        // The source sends less than asked for.
        let slow = |load| -> Result<Trial, ()> {
            Ok(Trial {
                load,
                sent: 0.5e6,
                received: 0.5e6,
            })
        };
        assert_eq!(Search::default().find(Goal::Ndr, BOUNDS, slow), Ok(0.5e6));
    }

    #[test]
    fn a_dead_device_ends_the_search_and_a_single_hiccup_does_not_decide() {
        let mut search = Search::default();
        assert_eq!(search.find(Goal::Ndr, BOUNDS, device(0.0)), Ok(0.0));
        assert!(search.trials.len() <= 2 * (BOUNDS.loads + 1));
        let mut count = 0;
        let hiccup = |load: f64| -> Result<Trial, ()> {
            count += 1;
            let lost = if count % 3 == 1 { 100.0 } else { 0.0 };
            Ok(Trial {
                load,
                sent: load,
                received: load.min(5e5) - lost,
            })
        };
        let ndr = Search::default().find(Goal::Ndr, BOUNDS, hiccup);
        assert!((4.9e5..=5e5).contains(&ndr.unwrap_or_default()), "{ndr:?}");
    }

    #[test]
    fn errors_end_a_search() {
        let broken = |_| -> Result<Trial, &str> { Err("the wire is cut") };
        assert_eq!(
            Search::default().find(Goal::Pdr, BOUNDS, broken),
            Err("the wire is cut")
        );
    }
}
