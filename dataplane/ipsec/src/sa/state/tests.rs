//! The state by itself, then its way between workers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::crypto::suite::Protocol;
use crate::sa::association::share_homes;
use crate::sa::sample;

const FREE: u64 = u64::MAX;

fn state(direction: Direction, sequence: u64) -> SaState {
    let parameters = sample::parameters(direction, 0x1001, "192.0.2.1");
    SaState::new(&parameters, &Start::after(sequence), Time(0))
}

#[test]
fn an_outbound_state_gives_numbers_within_the_reservation() {
    let mut state = state(Direction::Out, 10);
    assert_eq!(state.check_outbound(10), Err(DropReason::NoReservation));
    assert_eq!(state.take(10), Err(DropReason::NoReservation));
    assert_eq!(state.check_outbound(12), Ok(()));
    assert_eq!(state.sequence(), 10);
    assert_eq!(state.take(12), Ok(11));
    assert_eq!(state.take(12), Ok(12));
    assert_eq!(state.take(12), Err(DropReason::NoReservation));
    assert_eq!(state.sequence(), 12);
    assert_eq!(state.check_inbound(13), Err(DropReason::WrongDirection));
    assert_eq!(state.accept(13, FREE), Err(DropReason::WrongDirection));
    assert_eq!(state.export(), None);
}

#[test]
fn an_inbound_state_takes_no_number_above_the_limit_and_gives_none() {
    let mut state = state(Direction::In, 100);
    assert_eq!(state.check_inbound(100), Err(DropReason::Replay));
    let number = state.check_inbound(109).unwrap();
    assert_eq!(state.accept(number, 108), Err(DropReason::NoReservation));
    assert_eq!(state.sequence(), 100);
    // Held and offered again.
    assert_eq!(state.accept(number, 109), Ok(Advance::Right));
    assert_eq!(state.accept(105, 109), Ok(Advance::Inside));
    assert_eq!(state.accept(105, 109), Err(DropReason::Replay));
    // A limit that was lowered holds for numbers inside the window too.
    assert_eq!(state.accept(107, 106), Err(DropReason::NoReservation));
    assert_eq!(state.accept(105, 104), Err(DropReason::Replay));
    assert_eq!(state.take(FREE), Err(DropReason::WrongDirection));
    assert_eq!(state.check_outbound(FREE), Err(DropReason::WrongDirection));
}

#[test]
fn a_peer_far_ahead_is_reserved_for_and_then_accepted() {
    let mut state = state(Direction::In, 100);
    let published = Published::default();
    let asked = |state: &mut SaState, end| {
        state.publish(&published);
        state
            .wants_reservation(end)
            .then(|| published.needed.load(Relaxed))
    };
    assert_eq!(asked(&mut state, 108), None);
    // The peer restarted and goes on behind what it had reserved.
    assert_eq!(state.accept(5000, 108), Err(DropReason::NoReservation));
    assert_eq!(asked(&mut state, 108), Some(5000));
    // Held and offered again: not asked for twice, and nothing has moved.
    assert_eq!(state.accept(5000, 108), Err(DropReason::NoReservation));
    assert_eq!(asked(&mut state, 108), None);
    assert_eq!(state.sequence(), 100);
    assert_eq!(state.accept(101, 108), Ok(Advance::Right));
    assert_eq!(state.accept(5000, 5008), Ok(Advance::Right));
    assert_eq!(state.needed(), 5000);
    // What was seen already is no reason to reserve.
    assert_eq!(state.accept(5000, 10), Err(DropReason::Replay));
}

//= test T48
#[test]
fn ah_has_the_same_window_as_esp() {
    for protocol in [Protocol::Esp, Protocol::Ah] {
        let parameters = SaParameters {
            protocol,
            ..sample::parameters(Direction::In, 0x1001, "192.0.2.1")
        };
        let mut state = SaState::new(&parameters, &Start::default(), Time(0));
        assert_eq!(state.check_inbound(0), Err(DropReason::Replay));
        assert_eq!(state.accept(100, FREE), Ok(Advance::Right));
        assert_eq!(state.check_inbound(100), Err(DropReason::Replay));
        assert_eq!(state.check_inbound(36), Err(DropReason::Replay));
        assert_eq!(state.check_inbound(37), Ok(37));
    }
}

//= test T80
#[test]
fn without_anti_replay_no_limit_holds() {
    let mut parameters = sample::parameters(Direction::In, 0x1001, "192.0.2.1");
    parameters.replay_window = 0;
    let mut state = SaState::new(&parameters, &Start::after(5), Time(0));
    for _ in 0..2 {
        assert!(state.accept(state.check_inbound(0).unwrap(), 0).is_ok());
        assert!(state.accept(state.check_inbound(9).unwrap(), 0).is_ok());
    }
}

//= test T57
#[test]
fn age_counts_from_the_birth() {
    let limits = Lifetime {
        soft_seconds: 2,
        hard_seconds: 3,
        ..Lifetime::default()
    };
    let parameters = sample::parameters(Direction::Out, 0x1001, "192.0.2.1");
    let state = SaState::new(&parameters, &Start::default(), Time(5 * SECOND));
    assert_eq!(state.stage(&limits, Time(0)), Stage::Mature);
    assert_eq!(state.stage(&limits, Time(7 * SECOND - 1)), Stage::Mature);
    assert_eq!(state.stage(&limits, Time(7 * SECOND)), Stage::Dying);
    assert_eq!(state.check_lifetime(&limits, Time(8 * SECOND - 1)), Ok(()));
    assert_eq!(
        state.check_lifetime(&limits, Time(8 * SECOND)),
        Err(DropReason::SaExpired)
    );
}

//= test T57
#[test]
fn exactly_the_hard_packets_are_counted() {
    let limits = Lifetime {
        hard_packets: 7,
        ..Lifetime::default()
    };
    let mut state = state(Direction::Out, 0);
    for _ in 0..20 {
        if state.check_lifetime(&limits, Time(0)).is_ok() {
            state.count(100);
        }
    }
    assert_eq!((state.packets(), state.bytes()), (7, 700));
}

//= test T134
#[test]
fn identifications_do_not_repeat_within_65535_packets() {
    let mut state = state(Direction::Out, 77);
    let ids: std::collections::HashSet<_> = (0..65_536).map(|_| state.identification()).collect();
    assert_eq!(ids.len(), 65_536);
}

//= test T57
#[test]
fn what_is_published_is_what_is_and_ages_without_packets() {
    let limits = Lifetime {
        soft_packets: 2,
        soft_seconds: 5,
        hard_seconds: 9,
        ..Lifetime::default()
    };
    let parameters = sample::parameters(Direction::Out, 0x1001, "192.0.2.1");
    let mut state = SaState::new(&parameters, &Start::after(40), Time(3 * SECOND));
    state.take(FREE).unwrap();
    state.count(1400);
    let published = Published::default();
    state.publish(&published);
    assert_eq!(published.packets.load(Relaxed), 1);
    assert_eq!(published.bytes.load(Relaxed), 1400);
    assert_eq!(published.sequence.load(Relaxed), 41);
    assert_eq!(published.reserved_end.load(Relaxed), 0);
    let at = |seconds| published.stage(&limits, Time(seconds * SECOND));
    assert_eq!([at(0), at(7)], [Stage::Mature; 2]);
    assert_eq!([at(8), at(11)], [Stage::Dying; 2]);
    assert_eq!(at(12), Stage::Dead);
    state.count(60);
    state.publish(&published);
    assert_eq!(published.stage(&limits, Time(0)), Stage::Dying);
}

#[test]
fn a_clean_stop_keeps_the_exact_window() {
    let parameters = sample::parameters(Direction::In, 0x1001, "192.0.2.1");
    let mut state = SaState::new(&parameters, &Start::default(), Time(0));
    for number in [3, 9, 50] {
        state.accept(number, FREE).unwrap();
    }
    let window = state.export();
    let start = Start {
        sequence: 50,
        window,
        ..Start::default()
    };
    let next = SaState::new(&parameters, &start, Time(0));
    assert_eq!(next.check_inbound(9), Err(DropReason::Replay));
    assert_eq!(next.check_inbound(10), Ok(10));
    // A window that does not belong to the number is not believed.
    let next = SaState::new(
        &parameters,
        &Start {
            sequence: 60,
            ..start
        },
        Time(0),
    );
    assert_eq!(next.check_inbound(10), Err(DropReason::Replay));
    assert_eq!(next.check_inbound(61), Ok(61));
}

#[test]
fn the_first_worker_adopts_and_the_others_are_sent_there() {
    let sa = sample::sa(300, sample::parameters(Direction::Out, 0x1001, "192.0.2.1"));
    let (mut first, mut second) = (States::new(1), States::new(2));
    assert!(first.of(sa.slot).is_none());
    assert_eq!(first.adopt(&sa), Ownership::Mine);
    assert_eq!(first.adopt(&sa), Ownership::Mine);
    assert_eq!(second.adopt(&sa), Ownership::Elsewhere(1));
    assert!(second.of(sa.slot).is_none());
    assert_eq!(first.of(sa.slot).unwrap().take(FREE), Ok(1));
    // Parked, the other may have it, and goes on where the first stopped.
    first.park_all(&[Arc::clone(&sa)]);
    assert!(first.of(sa.slot).is_none());
    assert_eq!(second.adopt(&sa), Ownership::Mine);
    assert_eq!(first.adopt(&sa), Ownership::Elsewhere(2));
    assert_eq!(second.of(sa.slot).unwrap().take(FREE), Ok(2));
    // Only its owner parks it.
    first.park_all(&[Arc::clone(&sa)]);
    assert_eq!(second.adopt(&sa), Ownership::Mine);
}

#[test]
fn the_sas_of_a_bundle_live_together() {
    let named = |slot, name: &str| {
        let mut parameters = sample::parameters(Direction::Out, 0x1000 + slot, "192.0.2.1");
        parameters.name = name.to_owned();
        let state = SaState::new(&parameters, &Start::default(), Time(0));
        let sa = Sa::new(SaSlot(slot), parameters, 0).unwrap();
        *sa.parked.lock().unwrap() = Some(Box::new(state));
        sa
    };
    let names = ["esp-1", "esp-2", "ah-1", "ah-2", "alone"];
    let mut sas: Vec<Sa> = (0..)
        .zip(names)
        .map(|(slot, name)| named(slot, name))
        .collect();
    let bundle = |all: &[&str]| -> Vec<String> { all.iter().map(ToString::to_string).collect() };
    let bundles = [
        bundle(&["esp-1", "ah-1"]),
        bundle(&["esp-2", "ah-2"]),
        bundle(&["alone"]),
        bundle(&["nobody", "neither"]),
        // Joins the first two.
        bundle(&["esp-1", "ah-2"]),
    ];
    let mut own: Vec<&mut Sa> = sas.iter_mut().collect();
    share_homes(&mut own, bundles.iter().map(Vec::as_slice));
    let sas: Vec<Arc<Sa>> = sas.into_iter().map(Arc::new).collect();
    let (mut first, mut second) = (States::new(1), States::new(2));
    assert_eq!(first.adopt(&sas[3]), Ownership::Mine);
    assert_eq!(second.adopt(&sas[4]), Ownership::Mine);
    for sa in &sas[..4] {
        assert_eq!(second.adopt(sa), Ownership::Elsewhere(1));
        assert_eq!(first.adopt(sa), Ownership::Mine);
    }
    assert_eq!(first.adopt(&sas[4]), Ownership::Elsewhere(2));
    first.of(SaSlot(0)).unwrap().count(1);
    first.park_all(&sas);
    for sa in &sas {
        assert_eq!(second.adopt(sa), Ownership::Mine);
    }
    assert_eq!(second.of(SaSlot(0)).unwrap().packets(), 1);
}

#[test]
fn a_released_state_is_gone_and_a_slot_used_again_starts_afresh() {
    let old = sample::sa(5, sample::parameters(Direction::Out, 0x1001, "192.0.2.1"));
    let mut states = States::new(0);
    assert_eq!(states.adopt(&old), Ownership::Mine);
    states.of(old.slot).unwrap().count(1);
    let new = sample::sa(5, sample::parameters(Direction::Out, 0x1002, "192.0.2.1"));
    // Without a release too: nobody mistakes the old one's state for the new one's.
    assert_eq!(states.adopt(&new), Ownership::Mine);
    assert_eq!(states.of(new.slot).unwrap().packets(), 0);
    assert!(states.release(new.slot).is_some());
    assert!(states.release(new.slot).is_none());
    assert_eq!(states.adopt(&new), Ownership::Gone);
    assert!(states.of(new.slot).is_none());
}

#[test]
fn of_many_workers_at_once_one_adopts() {
    for round in 0..200 {
        let sa = sample::sa(
            round,
            sample::parameters(Direction::In, 0x1001, "192.0.2.1"),
        );
        let owners: Vec<Ownership> = std::thread::scope(|scope| {
            let adopt = |worker| {
                let sa = &sa;
                scope.spawn(move || States::new(worker).adopt(sa))
            };
            let workers: Vec<_> = (0..4).map(adopt).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        let home = sa.home.load(Acquire);
        for (worker, owner) in (0..).zip(owners) {
            let expected = if worker == home {
                Ownership::Mine
            } else {
                Ownership::Elsewhere(home)
            };
            assert_eq!(owner, expected);
        }
    }
}

//= test T57 (RFC 4301 section 4.4.2.1)
#[test]
fn what_earlier_runs_carried_counts_for_the_lifetime() {
    let parameters = sample::parameters(Direction::Out, 0x1001, "192.0.2.1");
    let limits = Lifetime {
        hard_packets: 10,
        soft_bytes: 1000,
        hard_seconds: 60,
        ..Lifetime::default()
    };
    let start = |packets, bytes, seconds| Start {
        usage: Usage {
            packets,
            bytes,
            seconds,
        },
        ..Start::default()
    };
    let born = Time(1000 * SECOND);
    let stage = |start| SaState::new(&parameters, &start, born).stage(&limits, born);
    assert_eq!(stage(start(9, 999, 59)), Stage::Mature);
    assert_eq!(stage(start(10, 0, 0)), Stage::Dead);
    assert_eq!(stage(start(0, 1000, 0)), Stage::Dying);
    assert_eq!(stage(start(0, 0, 60)), Stage::Dead);
    let mut state = SaState::new(&parameters, &start(9, 0, 30), born);
    state.count(34);
    assert_eq!(
        state.check_lifetime(&limits, born),
        Err(DropReason::SaExpired)
    );
}

#[test]
fn what_waits_is_overtaken_by_nothing_for_as_long_as_it_may_be_kept() {
    let mut state = state(Direction::In, 0);
    let since = Time(5);
    let [last, over] = [HELD_AT_MOST - 1, HELD_AT_MOST].map(|kept| Time(since.0 + kept));
    assert_eq!(state.acceptable_end(20, since), 20);
    state.hold_up(10, since);
    assert_eq!(state.acceptable_end(20, since), 10);
    assert_eq!(state.acceptable_end(20, last), 10);
    // Never beyond what is reserved.
    assert_eq!(state.acceptable_end(9, last), 9);
    assert_eq!(state.acceptable_end(20, over), 20);
    state.hold_up(20, last);
    assert_eq!(state.acceptable_end(30, over), 20);
    state.offer_again();
    assert_eq!(state.acceptable_end(30, over), 30);
}

//= test T57
#[test]
fn what_is_ahead_in_a_batch_counts_towards_each_limit() {
    let mut state = state(Direction::Out, u64::from(u32::MAX) - 8);
    state.count(60);
    let lifetime = Lifetime {
        hard_packets: 5,
        hard_bytes: 100,
        ..Lifetime::default()
    };
    let ahead = |packets, bytes| state.check_ahead(&lifetime, Ahead { packets, bytes }, Time(0));
    assert_eq!(ahead(3, 39), Ok(()));
    assert_eq!(ahead(4, 39), Err(DropReason::SaExpired));
    assert_eq!(ahead(3, 40), Err(DropReason::SaExpired));
    // Eight numbers are left.
    let ahead = |packets| {
        let ahead = Ahead { packets, bytes: 0 };
        state.check_ahead(&Lifetime::default(), ahead, Time(0))
    };
    assert_eq!(ahead(7), Ok(()));
    assert_eq!(ahead(8), Err(DropReason::SequenceExhausted));
}
