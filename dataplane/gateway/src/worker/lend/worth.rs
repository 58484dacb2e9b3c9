//! Whether lending pays, which depends on suite, lengths, CPU and who else wants its cores: so it
//! is measured. The home compares what it takes for a packet with and without lending, over rounds
//! in which it had more than it could do and nothing else, in short trials with long times between
//! them in which it does what was cheaper.
//!
//! A trial has slices of both kinds in turns and compares the best of each, since what disturbs a
//! slice only slows it. While it lends the home goes on measuring: what is dearer in the long run,
//! since helpers are preempted, is given up, for longer each time.
//!
//! Nothing here is shared, and a round costs an addition or two.

use ipsec::time::{MILLISECOND, SECOND};

/// What a slice of a trial lasts at least, nanoseconds: a hundred rounds of short packets.
const SLICE: u64 = MILLISECOND / 4;

/// Packets that it has at least: four full bursts.
const PACKETS: u64 = 256;

/// Slices of each kind in a trial.
const TURNS: u32 = 2;

/// How much longer it is to the next trial than the last one took of the kind that is dearer, at
/// most: were it twice as dear, trials would cost 0.4 %.
const PERIOD: u64 = 256;

/// How long it is at most, nanoseconds.
const LONGEST: u64 = SECOND;

/// Doublings of that time, at most, where lending paid in trials and not in the long run.
const DOUBLINGS: u32 = 3;

/// Lending must be cheaper by one part of so many: it takes the time of another core, too.
const GAIN: u64 = 32;

/// What a round of the home was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Not full, or on the way from one kind to the other: it says nothing.
    Other,
    /// It did so many packets by itself.
    Alone(u64),
    /// It ended so many that had been lent, and has as many out as it had before.
    Lent(u64),
}

/// Packets and what they took, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    time: u64,
    packets: u64,
}

impl Sample {
    /// Whether a packet of this one took less, by one part of `gain`; 0: by whatever.
    fn is_cheaper(self, other: Self, gain: u64) -> bool {
        let product = |sample: Self, packets: u64| u128::from(sample.time) * u128::from(packets);
        let (own, others) = (product(self, other.packets), product(other, self.packets));
        let least = own.checked_div(gain.into()).unwrap_or(0);
        own + least < others
    }

    /// The one of two that was disturbed less.
    fn best(self, other: Self) -> Self {
        if other.packets > 0 && other.is_cheaper(self, 0) {
            other
        } else {
            self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    TrialLent,
    TrialAlone,
    Lent,
    Alone,
}

/// What a home knows of whether lending pays. It begins with a trial that begins with lending.
pub(super) struct Worth {
    phase: Phase,
    current: Sample,
    /// Of this trial, or the last.
    lent: Sample,
    alone: Sample,
    /// Slices of each kind that are done.
    turns: u32,
    /// What those without lending took, nanoseconds.
    spent: u64,
    /// What the present phase lasts at least, nanoseconds.
    period: u64,
    /// How often in a row lending was dearer in the long run.
    harms: u32,
}

impl Worth {
    pub(super) const fn new() -> Self {
        const NONE: Sample = Sample {
            time: 0,
            packets: 0,
        };
        Self {
            phase: Phase::TrialLent,
            current: NONE,
            lent: NONE,
            alone: NONE,
            turns: 0,
            spent: 0,
            period: SLICE,
            harms: 0,
        }
    }

    /// What is to be done now.
    pub(super) const fn lends(&self) -> bool {
        matches!(self.phase, Phase::TrialLent | Phase::Lent)
    }

    /// A round took `time` nanoseconds.
    pub(super) fn ended(&mut self, time: u64, round: Round) {
        let ((Round::Lent(packets), true) | (Round::Alone(packets), false)) = (round, self.lends())
        else {
            return;
        };
        self.current.time += time;
        self.current.packets += packets;
        if self.current.time >= self.period && self.current.packets >= PACKETS {
            let sample = std::mem::take(&mut self.current);
            self.follow(sample);
        }
    }

    /// What comes after a phase that gave `sample`.
    fn follow(&mut self, sample: Sample) {
        match self.phase {
            Phase::TrialLent => {
                self.lent = sample.best(self.lent);
                self.phase = Phase::TrialAlone;
            }
            Phase::TrialAlone => {
                self.alone = sample.best(self.alone);
                self.spent += sample.time;
                self.turns += 1;
                self.phase = Phase::TrialLent;
                if self.turns == TURNS {
                    self.decide();
                }
            }
            Phase::Lent if !sample.is_cheaper(self.alone, 0) => {
                self.harms = (self.harms + 1).min(DOUBLINGS);
                self.go_on(Phase::Alone);
            }
            Phase::Lent => {
                self.harms = 0;
                self.try_again();
            }
            Phase::Alone => self.try_again(),
        }
    }

    fn decide(&mut self) {
        if self.lent.is_cheaper(self.alone, GAIN) {
            self.go_on(Phase::Lent);
        } else {
            self.go_on(Phase::Alone);
        }
    }

    fn go_on(&mut self, phase: Phase) {
        self.phase = phase;
        self.period = (PERIOD * self.spent).min(LONGEST);
        if phase == Phase::Alone {
            self.period <<= self.harms;
        }
    }

    fn try_again(&mut self) {
        let harms = self.harms;
        *self = Self::new();
        self.harms = harms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full burst.
    const BURST: u64 = 64;

    /// A home with more than it can do, and what a packet costs it, nanoseconds.
    struct Home {
        worth: Worth,
        alone: u64,
        lent: u64,
    }

    impl Home {
        fn new(alone: u64, lent: u64) -> Self {
            let worth = Worth::new();
            Self { worth, alone, lent }
        }

        /// One round, `more` times as long as it should be. Answers the packets' time and whether
        /// they were lent.
        fn round(&mut self, more: u64) -> (u64, bool) {
            let lends = self.worth.lends();
            let (cost, round) = if lends {
                (self.lent, Round::Lent(BURST))
            } else {
                (self.alone, Round::Alone(BURST))
            };
            let time = cost * BURST * more;
            self.worth.ended(time, round);
            (time, lends)
        }

        /// So much time. Answers packets a microsecond, and the part that was lent.
        fn run(&mut self, time: u64) -> (f64, f64) {
            let (mut past, mut rounds, mut lent) = (0, 0, 0);
            while past < time {
                let (took, lends) = self.round(1);
                past += took;
                rounds += 1;
                lent += u64::from(lends);
            }
            let packets = (rounds * BURST) as f64;
            (packets * 1000.0 / past as f64, lent as f64 / rounds as f64)
        }
    }

    #[test]
    fn what_pays_is_done_and_trials_cost_next_to_nothing() {
        // 64 and 9000 bytes of AES-GCM, 1420 of 3DES.
        for (alone, lent) in [(120, 90), (1500, 780), (10_000, 5200)] {
            let (rate, part) = Home::new(alone, lent).run(20 * SECOND);
            let best = 1000.0 / lent as f64;
            assert!(rate > 0.996 * best && part > 0.99, "{rate} {best} {part}");
        }
    }

    #[test]
    fn a_home_is_never_slower_for_lending() {
        for (alone, lent) in [(120, 170), (200, 400), (120, 120), (120, 118), (1500, 3000)] {
            let (rate, part) = Home::new(alone, lent).run(20 * SECOND);
            let best = 1000.0 / alone as f64;
            assert!(rate > 0.992 * best && part < 0.01, "{rate} {best} {part}");
        }
    }

    #[test]
    fn another_traffic_is_noticed() {
        let mut home = Home::new(1500, 780);
        assert!(home.run(3 * SECOND).1 > 0.9);
        (home.alone, home.lent) = (120, 170);
        home.run(SECOND + SECOND / 4);
        assert!(home.run(SECOND).1 < 0.01);
        (home.alone, home.lent) = (1500, 780);
        home.run(SECOND + SECOND / 4);
        assert!(home.run(SECOND).1 > 0.99);
    }

    #[test]
    fn a_slice_that_is_disturbed_changes_nothing() {
        for (alone, lent) in [(300, 200), (200, 300)] {
            for disturbed in 0..4 {
                let mut home = Home::new(alone, lent);
                let mut slices = 0;
                // Through the first trial, in one of whose slices a round takes 5 ms.
                while matches!(home.worth.phase, Phase::TrialLent | Phase::TrialAlone) {
                    let before = home.worth.phase;
                    home.round(if slices == disturbed { 300 } else { 1 });
                    slices += u32::from(home.worth.phase != before);
                }
                assert_eq!(home.worth.lends(), lent < alone, "slice {disturbed}");
            }
        }
    }

    #[test]
    fn what_pays_in_trials_and_not_in_the_long_run_is_given_up_for_longer_each_time() {
        let mut home = Home::new(300, 200);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            while home.worth.phase != Phase::Lent {
                home.round(1);
            }
            // Helpers are preempted now and then.
            while home.worth.phase == Phase::Lent {
                home.round(2);
            }
            assert_eq!(home.worth.phase, Phase::Alone);
            pauses.push(home.worth.period);
        }
        assert!(pauses[0] < pauses[1] && pauses[1] < pauses[2], "{pauses:?}");
        assert_eq!(pauses[4], pauses[5]);
        // No longer: one period, then as at the beginning.
        while home.worth.phase != Phase::Lent {
            home.round(1);
        }
        while home.worth.phase == Phase::Lent {
            home.round(1);
        }
        assert_eq!(home.worth.harms, 0);
    }

    #[test]
    fn rounds_that_say_nothing_change_nothing() {
        let mut worth = Worth::new();
        for _ in 0..10_000 {
            worth.ended(SLICE, Round::Other);
            worth.ended(SLICE, Round::Alone(BURST));
        }
        assert!(worth.lends());
        assert_eq!(worth.current.packets, 0);
    }
}
