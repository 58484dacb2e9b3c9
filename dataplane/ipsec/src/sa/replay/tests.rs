//! The window against a model that keeps a set of numbers, and by hand where an RFC or another
//! implementation names a case.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const EPOCH: u64 = 1 << 32;

/// RFC 4303 §3.4.3 and Appendix A2.1 in the slow way: all numbers ever accepted.
struct Model {
    right: u64,
    size: u64,
    esn: bool,
    /// Up to here all counts as seen.
    start: u64,
    accepted: BTreeSet<u64>,
}

impl Model {
    fn new(size: u32, esn: bool, start: u64) -> Self {
        let size = u64::from(size);
        Self {
            right: start,
            size,
            esn,
            start,
            accepted: BTreeSet::new(),
        }
    }

    fn is_new(&self, number: u64) -> bool {
        number > self.start && number + self.size > self.right && !self.accepted.contains(&number)
    }

    /// Of the numbers with these lower bits, the one in the 2³² that begin at the window's left
    /// end. That is all that Appendix A2 says.
    fn number(&self, low: u32) -> Option<u64> {
        if !self.esn {
            return Some(u64::from(low));
        }
        let left = i128::from(self.right) - i128::from(self.size) + 1;
        let offset = (i128::from(low) - left).rem_euclid(i128::from(EPOCH));
        u64::try_from(left + offset).ok()
    }

    fn check(&self, low: u32) -> Result<u64, DropReason> {
        let number = self.number(low).ok_or(DropReason::Replay)?;
        if self.is_new(number) {
            Ok(number)
        } else {
            Err(DropReason::Replay)
        }
    }

    fn accept(&mut self, number: u64) -> bool {
        let new = self.is_new(number);
        if new {
            self.accepted.insert(number);
            self.right = self.right.max(number);
        }
        new
    }
}

fn low(number: u64) -> u32 {
    u32::try_from(number % EPOCH).unwrap()
}

fn sizes() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(32_u32),
        Just(33),
        Just(63),
        Just(64),
        Just(65),
        Just(128),
        Just(255),
        Just(256),
        Just(257),
        Just(1000),
        Just(1024),
        Just(4096),
        32..5000_u32,
        Just(1 << 16),
        Just((1 << 19) + 1),
        Just(REPLAY_WINDOW_MAXIMUM - 1),
        Just(REPLAY_WINDOW_MAXIMUM),
        5000..=REPLAY_WINDOW_MAXIMUM,
    ]
}

fn starts() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0_u64),
        0..200_u64,
        EPOCH - 300..EPOCH + 300,
        7 * EPOCH - 300..7 * EPOCH + 300,
        (1_u64 << 63) - 300..(1 << 63) + 300,
    ]
}

/// Steps from the right edge, forth and back.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![
        6 => Just(1_i64),
        4 => -70..70_i64,
        2 => -5000..5000_i64,
        2 => -(1_i64 << 20) - 2..(1 << 20) + 2,
        1 => -(1_i64 << 31)..(1 << 31),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Steps as above, and to both sides of the left end of a window of that size.
fn steps_around(size: u32) -> impl Strategy<Value = Vec<i64>> {
    let left = -i64::from(size);
    (
        steps(),
        proptest::collection::vec((0..300_usize, left - 3..left + 4), 0..60),
    )
        .prop_map(|(mut steps, left)| {
            for (place, step) in left {
                steps.insert(place.min(steps.len()), step);
            }
            steps
        })
}

fn sized_steps() -> impl Strategy<Value = (u32, Vec<i64>)> {
    sizes().prop_flat_map(|size| (Just(size), steps_around(size)))
}

proptest! {
    //= test T24
    //= test T25
    //= test T26
    //= test T27
    //= test T30
    #[test]
    fn equals_a_set_of_numbers(
        (size, steps) in sized_steps(), esn: bool, start in starts(), forged: bool,
    ) {
        let start = if esn { start } else { start % EPOCH };
        let mut window = Window::new(size, esn, start);
        let mut model = Model::new(size, esn, start);
        for step in steps {
            let low = low(model.right.wrapping_add_signed(step));
            let checked = window.check(low);
            prop_assert_eq!(checked, model.check(low));
            let Ok(number) = checked else { continue };
            // A forged packet ends at the ICV: the model does not hear of it either.
            if forged && step % 3 == 0 {
                continue;
            }
            prop_assert_eq!(window.accept(number).is_ok(), model.accept(number));
            prop_assert_eq!(window.accept(number), Err(DropReason::Replay));
            prop_assert_eq!(window.right(), model.right);
        }
    }

    #[test]
    fn a_saved_window_knows_what_the_old_one_knew(
        size in sizes(), next_size in sizes(), start in starts(), steps in steps(),
    ) {
        let mut window = Window::new(size, true, start);
        for step in steps {
            if let Ok(number) = window.check(low(window.right().wrapping_add_signed(step))) {
                window.accept(number).unwrap();
            }
        }
        let saved = window.export();
        let saved = SavedWindow::from_bytes(&saved.to_bytes()).unwrap();
        let same = Window::restored(size, true, &saved);
        let other = Window::restored(next_size, true, &saved);
        prop_assert_eq!(same.export(), saved);
        let right = window.right();
        for number in right.saturating_sub(6000).max(1)..right + 70 {
            prop_assert_eq!(same.recheck(number), window.recheck(number));
            let older = number + u64::from(next_size) <= right;
            let expected = if older { Err(DropReason::Replay) } else { window.recheck(number) };
            prop_assert_eq!(other.recheck(number), expected, "{}", number);
        }
    }

    #[test]
    fn no_saved_bytes_can_panic(bytes: Vec<u8>, size in sizes(), esn: bool, low: u32) {
        if let Some(saved) = SavedWindow::from_bytes(&bytes) {
            let mut window = Window::restored(size, esn, &saved);
            if let Ok(number) = window.check(low) {
                window.accept(number).unwrap();
            }
            drop(window.export());
        }
    }
}

/// Checks and accepts; the wire's way of an authentic packet.
fn receive(window: &mut Window, low: u32) -> Result<u64, DropReason> {
    let number = window.check(low)?;
    window.accept(number)?;
    Ok(number)
}

//= test T81
#[test]
fn the_first_packet_may_have_any_number_but_0() {
    for esn in [false, true] {
        for first in [1, 2, 64, 65, 1_000_000, 1 << 31] {
            let mut window = Window::new(64, esn, 0);
            assert_eq!(window.check(0), Err(DropReason::Replay), "esn {esn}");
            assert_eq!(receive(&mut window, first), Ok(u64::from(first)));
            assert_eq!(window.check(first), Err(DropReason::Replay));
        }
    }
}

/// VPP's `template_ipsec.py`, anti-replay without ESN.
//= test T27
//= test T28
#[test]
fn packets_1_to_34_then_all_again_then_a_jump() {
    let mut window = Window::new(64, false, 0);
    for number in 1..35 {
        assert_eq!(receive(&mut window, number), Ok(u64::from(number)));
    }
    for number in 1..35 {
        assert_eq!(receive(&mut window, number), Err(DropReason::Replay));
    }
    // A far packet with a wrong key is checked, never accepted: nothing moves.
    assert_eq!(window.check(35 + 1000), Ok(1035));
    assert_eq!(receive(&mut window, 35), Ok(35));
    assert_eq!(receive(&mut window, 64 + 100), Ok(164));
    assert_eq!(receive(&mut window, 64 + 100), Err(DropReason::Replay));
    // 101 is the oldest of the 64 numbers that end at 164.
    assert_eq!(receive(&mut window, 101), Ok(101));
    assert_eq!(receive(&mut window, 100), Err(DropReason::Replay));
    assert_eq!(receive(&mut window, 35), Err(DropReason::Replay));
}

//= test T29
#[test]
fn of_eight_copies_in_a_batch_one_is_accepted() {
    let mut window = Window::new(64, false, 0);
    let checked: Vec<_> = (0..8).map(|_| window.check(7)).collect();
    assert_eq!(checked, [Ok(7); 8]);
    let accepted = checked
        .into_iter()
        .filter(|it| window.accept(it.unwrap()).is_ok());
    assert_eq!(accepted.count(), 1);
}

//= test T26
#[test]
fn a_replay_early_in_a_batch_does_not_hurt_later_packets() {
    let mut window = Window::new(64, true, 0);
    receive(&mut window, 1).unwrap();
    let batch = [1, 1, 2, 3, 2, 4].map(|number| receive(&mut window, number));
    let replay = Err(DropReason::Replay);
    assert_eq!(batch, [replay, replay, Ok(2), Ok(3), replay, Ok(4)]);
}

/// VPP's `verify_hi_seq_num`.
//= test T30
#[test]
fn jumps_of_a_quarter_and_half_of_the_number_space() {
    let mut window = Window::new(64, true, 0);
    assert_eq!(receive(&mut window, 0x8000_0001), Ok(0x8000_0001));
    // Left of the window reads as the next epoch.
    assert_eq!(receive(&mut window, 0x4400_0001), Ok(0x1_4400_0001));
    assert_eq!(receive(&mut window, 0x8000_0001), Ok(0x1_8000_0001));
    assert_eq!(receive(&mut window, 0x0000_0005), Ok(0x2_0000_0005));
    assert_eq!(receive(&mut window, 0x8000_0005), Ok(0x2_8000_0005));
    assert_eq!(receive(&mut window, 0x7000_0005), Ok(0x3_7000_0005));
}

//= test T30
#[test]
fn case_a_reads_left_of_the_window_as_the_next_epoch_also_in_epoch_0() {
    let window = Window::new(64, true, 1000);
    assert_eq!(window.check(1000 - 64), Ok(EPOCH + 936));
    assert_eq!(window.check(0), Ok(EPOCH));
    assert_eq!(window.check(1000 - 63), Err(DropReason::Replay));
    assert_eq!(window.check(1001), Ok(1001));
    let window = Window::new(64, true, 5 * EPOCH + 63);
    assert_eq!(window.check(64), Ok(5 * EPOCH + 64));
    assert_eq!(window.check(u32::MAX), Ok(5 * EPOCH + EPOCH - 1));
}

//= test T30
#[test]
fn case_b_reaches_back_into_the_epoch_before() {
    let mut window = Window::new(64, true, EPOCH - 10);
    assert_eq!(receive(&mut window, 5), Ok(EPOCH + 5));
    // 64 numbers that end at EPOCH + 5: from EPOCH - 58.
    let before = |n: u32| u32::MAX - n + 1;
    assert_eq!(window.check(before(58)), Err(DropReason::Replay));
    assert_eq!(receive(&mut window, before(9)), Ok(EPOCH - 9));
    assert_eq!(receive(&mut window, before(1)), Ok(EPOCH - 1));
    assert_eq!(receive(&mut window, before(1)), Err(DropReason::Replay));
    // One to the left of the window: this epoch's far end.
    assert_eq!(window.check(before(59)), Ok(2 * EPOCH - 59));
    assert_eq!(receive(&mut window, 0), Ok(EPOCH));
}

//= test T30
#[test]
fn what_would_lie_before_epoch_0_is_replay() {
    let window = Window::new(64, true, 0);
    assert_eq!(window.check(u32::MAX), Err(DropReason::Replay));
    assert_eq!(window.check(u32::MAX - 62), Err(DropReason::Replay));
    assert_eq!(window.check(u32::MAX - 63), Ok(EPOCH - 64));
    let window = Window::new(64, true, 62);
    assert_eq!(window.check(u32::MAX), Err(DropReason::Replay));
    let window = Window::new(64, true, 63);
    assert_eq!(window.check(u32::MAX), Ok(EPOCH - 1));
}

#[test]
fn nothing_lies_behind_the_last_epoch() {
    let mut window = Window::new(64, true, u64::MAX - 1000);
    assert_eq!(window.check(0), Err(DropReason::Replay));
    assert_eq!(receive(&mut window, u32::MAX), Ok(u64::MAX));
    assert_eq!(window.check(u32::MAX), Err(DropReason::Replay));
    assert_eq!(receive(&mut window, u32::MAX - 1), Ok(u64::MAX - 1));
    assert_eq!(window.check(5), Err(DropReason::Replay));
}

//= test T80
#[test]
fn without_anti_replay_duplicates_old_ones_and_0_pass() {
    let mut window = Window::new(0, false, 10);
    for number in [5, 5, 0, 0, 1 << 31, 5, u32::MAX, 1, 0] {
        assert_eq!(receive(&mut window, number), Ok(u64::from(number)));
    }
    assert_eq!(window.right(), u64::from(u32::MAX));
    assert!(!window.is_on());
}

//= test T25
#[test]
fn the_largest_window_is_exact() {
    let size = REPLAY_WINDOW_MAXIMUM;
    let mut window = Window::new(size, true, 0);
    let right = 3 * u64::from(size) + 17;
    window.accept(right).unwrap();
    let left = right - u64::from(size) + 1;
    assert_eq!(window.recheck(left - 1), Err(DropReason::Replay));
    for number in (left..right).step_by(9973) {
        assert_eq!(window.accept(number), Ok(Advance::Inside));
        assert_eq!(window.accept(number), Err(DropReason::Replay));
    }
    assert_eq!(window.accept(right + 1), Ok(Advance::Right));
    assert_eq!(window.recheck(left), Err(DropReason::Replay));
    assert_eq!(window.bitmap.words().len() * 8, 128 * 1024);
}

//= test T87
#[test]
fn a_window_is_never_wider_than_the_largest() {
    assert_eq!(Window::new(u32::MAX, true, 0).size, REPLAY_WINDOW_MAXIMUM);
    const { assert!(REPLAY_WINDOW_MAXIMUM <= 1 << 31) };
}

#[test]
fn bytes_that_no_window_wrote_are_refused() {
    let saved = Window::new(64, false, 500).export();
    let bytes = saved.to_bytes();
    assert_eq!(SavedWindow::from_bytes(&bytes), Some(saved));
    assert_eq!(SavedWindow::from_bytes(&bytes[..bytes.len() - 1]), None);
    assert_eq!(SavedWindow::from_bytes(&bytes[..11]), None);
    let long = [&bytes[..], &[0; 80]].concat();
    assert_eq!(SavedWindow::from_bytes(&long), None);
}

#[test]
fn without_a_window_the_nearest_epoch_is_meant() {
    let half = 1_u64 << 31;
    let at = |right, low| Window::new(0, true, right).check(low);
    let middle = 5 << 32 | half;
    for (low, number) in [
        (0x8000_0001, middle + 1),
        (0xffff_ffff, middle + half - 1),
        // Exactly half the numbers ahead is as near as half behind; what is new is meant.
        (0, 6 << 32),
        (1, middle - half + 1),
        (0x7fff_ffff, middle - 1),
    ] {
        assert_eq!(at(middle, low), Ok(number), "{low:#x}");
    }
    // In a quarter of the epoch the half behind reaches into the one before.
    let quarter = 5 << 32 | 1 << 30;
    assert_eq!(at(quarter, 0xbfff_ffff), Ok(quarter + half - 1));
    assert_eq!(at(quarter, 0xc000_0001), Ok(4 << 32 | 0xc000_0001));
    // There is none before the first.
    assert_eq!(at(10, 0xffff_ffff), Ok(0xffff_ffff));
}

#[test]
fn there_is_no_number_behind_the_last_epoch() {
    let last = 0xffff_ffff_u64;
    let window = Window::new(64, true, last << 32 | 1000);
    assert_eq!(window.check(999), Err(DropReason::Replay), "seen");
    assert_eq!(window.check(1001), Ok(last << 32 | 1001));
    // Left of the window means the next epoch, of which there is none.
    assert_eq!(window.check(900), Err(DropReason::Replay));
    assert_eq!(
        Window::new(0, true, u64::MAX).check(5),
        Err(DropReason::Replay)
    );
}
