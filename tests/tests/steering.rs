//! The XDP program, run in the kernel: a frame in, its action and its counters out.
//!
//! Goal: every rule of docs/ARCHITECTURE.md "Steering" takes what it must and leaves what it must,
//! whatever a frame looks like. Method: the kernel's program test-run over a table of frames, for
//! the plain and the `frags` entry. No socket is in the map, so a frame for the socket shows the
//! fallback action, and its counter tells the decision. Then the programs are attached to a veth
//! in namespaces of this run's own.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "a test says what it skipped")]

#[path = "steering/attach.rs"]
mod attach;
#[path = "steering/either.rs"]
mod either;
#[path = "steering/frames.rs"]
mod frames;
#[path = "steering/protected.rs"]
mod protected;
#[path = "steering/unprotected.rs"]
mod unprotected;
#[path = "steering/world.rs"]
mod world;

use std::collections::BTreeSet;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use world::{Case, Runner};
use xipsec::port::settings::Side;
use xipsec::port::xdp::program::{Entry, ProgramError, SteerProgram, SteerSettings};
use xipsec_abi::Outcome;

/// Why programs cannot be loaded here, if so; says it.
fn skip(test: &str) -> bool {
    let settings = SteerSettings::new(Side::Protected, frames::PORT, 1);
    let why = match SteerProgram::load("probe", &settings) {
        Err(error @ ProgramError::Permission { .. }) => error.to_string(),
        _ => return false,
    };
    println!("SKIPPED {test}: {why}");
    true
}

const ENTRIES: [Entry; 2] = [Entry::Plain, Entry::Frags];

fn run_all(side: Side, cases: &[Case]) {
    for entry in ENTRIES {
        let mut runner = Runner::new(side, entry);
        for case in cases {
            runner.run(case);
        }
    }
}

#[test]
fn an_unprotected_port_takes_its_own_and_no_more() {
    if !skip("an_unprotected_port_takes_its_own_and_no_more") {
        run_all(Side::Unprotected, &unprotected::cases());
    }
}

#[test]
fn a_protected_port_takes_what_policies_name() {
    if !skip("a_protected_port_takes_what_policies_name") {
        run_all(Side::Protected, &protected::cases());
    }
}

#[test]
fn frames_that_are_not_ours_are_left_alone_on_either_side() {
    if !skip("frames_that_are_not_ours_are_left_alone_on_either_side") {
        let cases = [
            either::strangers(),
            either::unparsable(),
            either::built_in(),
        ]
        .concat();
        run_all(Side::Unprotected, &cases);
        run_all(Side::Protected, &cases);
    }
}

/// The tables above are complete: each outcome is what some frame ends in.
#[test]
fn every_outcome_has_a_frame() {
    let tables = [
        unprotected::cases(),
        protected::cases(),
        either::strangers(),
        either::unparsable(),
        either::built_in(),
    ];
    let mut seen: BTreeSet<Outcome> = tables.iter().flatten().map(|case| case.outcome).collect();
    // With settings of their own, below.
    seen.extend([Outcome::DropUnmatched, Outcome::SocketUdpFragment]);
    seen.extend([Outcome::NoSocketPassed, Outcome::NoSocketDropped]);
    let missing: Vec<&str> = Outcome::ALL
        .into_iter()
        .filter(|outcome| !seen.contains(outcome))
        .map(Outcome::name)
        .collect();
    assert_eq!(missing, <[&str; 0]>::default());
}

#[test]
fn settings_change_what_is_dropped_and_reassembled() {
    if skip("settings_change_what_is_dropped_and_reassembled") {
        return;
    }
    for entry in ENTRIES {
        let mut runner = Runner::new(Side::Unprotected, entry);
        runner.tables.unmatched = xipsec::port::xdp::steer::Unmatched::Discard;
        runner.tables.reassemble_udp = true;
        runner.update();
        for case in unprotected::with_discard_and_reassembly() {
            runner.run(&case);
        }
    }
}

/// A packet of several buffers is steered by its first headers and counted whole.
#[test]
fn a_jumbo_frame_is_steered_whole() {
    if skip("a_jumbo_frame_is_steered_whole") {
        return;
    }
    Runner::new(Side::Unprotected, Entry::Frags).run(&either::jumbo());
}

/// Bytes at random, and every cut of a real packet, end in exactly one outcome.
#[test]
fn garbage_is_counted_once() {
    if skip("garbage_is_counted_once") {
        return;
    }
    for side in [Side::Unprotected, Side::Protected] {
        let mut runner = Runner::new(side, Entry::Plain);
        let (mut frames, mut bytes) = (0, 0);
        for frame in either::garbage() {
            let action = runner.program.test_run(&frame).unwrap();
            assert!(
                [world::PASS, world::DROP].contains(&action),
                "action {action}"
            );
            frames += 1;
            bytes += frame.len() as u64;
        }
        assert_eq!(runner.decided(), (frames, bytes));
    }
}

#[test]
fn the_bare_forwarder_takes_all_but_address_resolution() {
    if skip("the_bare_forwarder_takes_all_but_address_resolution") {
        return;
    }
    // Of another MAC too: it stands for a forwarder that does not look.
    let mut runner = Runner::new(Side::Protected, Entry::RedirectAll);
    for case in [
        either::strangers(),
        either::unparsable(),
        either::built_in(),
    ]
    .concat()
    {
        let is_resolution = case.name.starts_with("ARP")
            || case.frame[12..] == [8, 6]
            || case.outcome == Outcome::PassNeighborDiscovery;
        let expected = if is_resolution {
            world::PASS
        } else {
            world::DROP
        };
        let action = runner.program.test_run(&case.frame).unwrap();
        assert_eq!(action, expected, "{}", case.name);
    }
    assert_eq!(runner.decided(), (0, 0), "it counts nothing");
}

/// The gateway has no CAP_PERFMON, without which the verifier admits less; and no CAP_SYS_ADMIN.
#[test]
fn two_capabilities_are_enough_and_missing_ones_are_named() {
    if skip("two_capabilities_are_enough_and_missing_ones_are_named") {
        return;
    }
    let settings = |entry| SteerSettings {
        entry,
        ..SteerSettings::new(Side::Unprotected, frames::PORT, 4)
    };
    let with = |set: CapabilitySet| {
        // Capabilities belong to a thread, and this one is the test's own.
        let sets = CapabilitySets {
            effective: set,
            permitted: set,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).unwrap();
    };
    let test = move || {
        with(CapabilitySet::BPF | CapabilitySet::NET_ADMIN);
        for entry in [Entry::Plain, Entry::Frags, Entry::RedirectAll] {
            let mut program = SteerProgram::load("wan0", &settings(entry)).unwrap();
            program.update(&world::tables()).unwrap();
            program.counters().unwrap();
        }
        with(CapabilitySet::NET_ADMIN);
        let error = SteerProgram::load("wan0", &settings(Entry::Plain))
            .err()
            .unwrap();
        assert!(matches!(error, ProgramError::Permission { .. }), "{error}");
        assert!(
            error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"),
            "{error}"
        );
    };
    std::thread::spawn(test).join().unwrap();
}

/// MAC and tables follow at run time; a table that is taken away takes nothing any more.
#[test]
fn changes_at_run_time_take_effect() {
    if skip("changes_at_run_time_take_effect") {
        return;
    }
    let mut runner = Runner::new(Side::Protected, Entry::Plain);
    let case = protected::to_the_peer();
    runner.run(&case);
    runner.program.change_mac([2, 0, 0, 0, 0, 9]).unwrap();
    runner.run(&Case {
        action: world::PASS,
        outcome: Outcome::PassOtherMac,
        ..case.clone()
    });
    runner.program.change_mac(frames::PORT).unwrap();
    runner.tables.outbound = xipsec::port::xdp::steer::PrefixPair::default();
    runner.update();
    runner.run(&Case {
        action: world::PASS,
        outcome: Outcome::PassUnmatched,
        ..case.clone()
    });
    runner.tables = world::tables();
    runner.update();
    runner.run(&case);
}
