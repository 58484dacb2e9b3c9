//! Fragments against policies with ports, and the compiled answer against the ordered one.

use proptest::prelude::*;

use super::*;
use crate::packet::Version;
use crate::policy::classifier::tests::{packet, policy, selector};
use crate::time::SECOND;

fn udp(fragment: Fragment, port: u16) -> Packet {
    Packet {
        source: 0xffff_0a01_0001,
        destination: 0xffff_0a02_0001,
        length: 60,
        upper_offset: 20,
        identification: 77,
        upper: match fragment {
            Fragment::Later => Upper::Opaque,
            _ => Upper::Ports {
                source: 1000,
                destination: port,
            },
        },
        version: Version::V4,
        protocol: protocol::UDP,
        hop_limit: 64,
        traffic_class: 0,
        fragment,
        dont_fragment: false,
    }
}

fn port(port: u16) -> Selector {
    port_of(protocol::UDP, port)
}

fn port_of(named: u8, port: u16) -> Selector {
    Selector {
        protocol: Some(named),
        remote_port: PortSelector::List {
            opaque: false,
            ranges: vec![(port, port)],
        },
        ..Selector::any()
    }
}

fn spd(entries: &[(Action, Selector)]) -> Spd {
    let policies = (0..)
        .zip(entries)
        .map(|(index, (action, selector))| policy(index, 10, *action, selector.clone()))
        .collect();
    Spd::new(Direction::Out, policies)
}

fn decide<'a>(spd: &'a Spd, memory: &mut Memory, packet: &Packet) -> Decision<'a> {
    let first = spd.find(&[packet]).first[0];
    spd.decide(packet, first, Passage::Outbound, memory, Time(1))
}

fn memory() -> Memory {
    Memory::new(8, SECOND)
}

const ANY: Selector = Selector::any();

//= test T64
#[test]
fn a_policy_without_ports_takes_later_fragments() {
    let spd = spd(&[(Action::Protect, ANY), (Action::Discard, port(53))]);
    let found = decide(&spd, &mut memory(), &udp(Fragment::Later, 0)).index();
    assert_eq!(found, Some(PolicyIndex(0)));
}

//= test T121
#[test]
fn later_fragments_follow_their_first_through_bypass_and_discard() {
    let spd = spd(&[(Action::Bypass, port(53)), (Action::Discard, port(54))]);
    let later = udp(Fragment::Later, 0);
    let mut memory = memory();
    assert_eq!(decide(&spd, &mut memory, &later), Decision::Fragment);
    let first = decide(&spd, &mut memory, &udp(Fragment::First, 53)).index();
    assert_eq!(first, Some(PolicyIndex(0)));
    assert_eq!(
        decide(&spd, &mut memory, &later),
        Decision::Bypass(PolicyIndex(0))
    );
    let first = decide(&spd, &mut memory, &udp(Fragment::First, 54)).index();
    assert_eq!(first, Some(PolicyIndex(1)));
    assert_eq!(
        decide(&spd, &mut memory, &later),
        Decision::Discard(PolicyIndex(1))
    );
}

//= test T125
#[test]
fn a_protect_policy_with_ports_never_takes_a_later_fragment() {
    let spd = spd(&[(Action::Protect, port(53)), (Action::Bypass, ANY)]);
    let mut memory = memory();
    assert!(
        decide(&spd, &mut memory, &udp(Fragment::First, 53))
            .index()
            .is_some()
    );
    assert_eq!(
        decide(&spd, &mut memory, &udp(Fragment::Later, 0)),
        Decision::Fragment
    );
}

//= test T64
#[test]
fn a_datagram_that_an_any_policy_took_goes_on_behind_one_with_ports() {
    let spd = spd(&[(Action::Discard, port(53)), (Action::Protect, ANY)]);
    let mut memory = memory();
    assert_eq!(
        decide(&spd, &mut memory, &udp(Fragment::Later, 0)),
        Decision::Fragment
    );
    let first = decide(&spd, &mut memory, &udp(Fragment::First, 5000)).index();
    assert_eq!(first, Some(PolicyIndex(1)));
    let later = decide(&spd, &mut memory, &udp(Fragment::Later, 0)).index();
    assert_eq!(later, Some(PolicyIndex(1)));
}

#[test]
fn a_first_fragment_too_short_for_its_ports_is_as_blind_as_a_later_one() {
    let spd = spd(&[(Action::Protect, port(53)), (Action::Bypass, ANY)]);
    let mut tiny = udp(Fragment::First, 53);
    tiny.upper = Upper::Opaque;
    assert_eq!(decide(&spd, &mut memory(), &tiny), Decision::Fragment);
}

#[test]
fn opaque_ports_take_what_hides_them() {
    let opaque = Selector {
        remote_port: PortSelector::List {
            opaque: true,
            ranges: Vec::new(),
        },
        ..port(0)
    };
    let spd = spd(&[(Action::Protect, port(53)), (Action::Protect, opaque)]);
    let found = decide(&spd, &mut memory(), &udp(Fragment::Later, 0)).index();
    assert_eq!(found, Some(PolicyIndex(1)));
}

#[test]
fn what_came_in_the_clear_says_nothing_of_what_came_through_an_sa() {
    let spd = spd(&[(Action::Bypass, port(53))]);
    let mut memory = memory();
    let first = udp(Fragment::First, 53);
    let later = udp(Fragment::Later, 0);
    let _ = spd.decide(
        &first,
        spd.find(&[&first]).first[0],
        Passage::Clear,
        &mut memory,
        Time(1),
    );
    let opened = spd.decide(
        &later,
        spd.find(&[&later]).first[0],
        Passage::Opened,
        &mut memory,
        Time(1),
    );
    assert_eq!(opened, Decision::Fragment);
}

/// The first fragment of a datagram of IPv6.
fn six(named: u8, port: u16) -> Packet {
    Packet {
        source: 1,
        destination: 2,
        version: Version::V6,
        protocol: named,
        ..udp(Fragment::First, port)
    }
}

/// A later one of it: destination options lie in what was cut, so it names those.
fn nameless() -> Packet {
    Packet {
        fragment: Fragment::Later,
        upper: Upper::Opaque,
        ..six(protocol::DESTINATION_OPTIONS, 0)
    }
}

fn of(named: u8) -> Selector {
    Selector {
        protocol: Some(named),
        ..ANY
    }
}

//= test T54 (RFC 4301 section 4.4.1.1)
//= test T108 (RFC 4301 section 4.4.1)
#[test]
fn a_hidden_protocol_matches_any_alone_and_passes_nobody_over() {
    // What stands behind may not let through what the first policy might be there to protect.
    let guarded = spd(&[(Action::Protect, of(protocol::UDP)), (Action::Bypass, ANY)]);
    let mut memory = memory();
    assert_eq!(
        decide(&guarded, &mut memory, &nameless()),
        Decision::Fragment
    );
    let first = decide(&guarded, &mut memory, &six(protocol::UDP, 53)).index();
    assert_eq!(first, Some(PolicyIndex(0)));
    assert_eq!(
        decide(&guarded, &mut memory, &nameless()),
        Decision::Fragment
    );
    // A datagram that the second one took goes on.
    let first = decide(&guarded, &mut memory, &six(protocol::TCP, 53)).index();
    assert_eq!(first, Some(PolicyIndex(1)));
    let later = decide(&guarded, &mut memory, &nameless()).index();
    assert_eq!(later, Some(PolicyIndex(1)));
    // In front of all others, any needs no first fragment.
    let open = spd(&[(Action::Protect, ANY), (Action::Bypass, of(protocol::UDP))]);
    let later = decide(&open, &mut Memory::new(0, SECOND), &nameless()).index();
    assert_eq!(later, Some(PolicyIndex(0)));
}

//= test T121
#[test]
fn hidden_protocols_follow_their_first_through_bypass_and_discard() {
    let spd = spd(&[
        (Action::Bypass, of(protocol::UDP)),
        (Action::Discard, port_of(protocol::TCP, 53)),
    ]);
    let mut memory = memory();
    assert_eq!(decide(&spd, &mut memory, &nameless()), Decision::Fragment);
    for (first, decided) in [
        (six(protocol::UDP, 9), Decision::Bypass(PolicyIndex(0))),
        (six(protocol::TCP, 53), Decision::Discard(PolicyIndex(1))),
    ] {
        assert!(decide(&spd, &mut memory, &first).index().is_some());
        assert_eq!(decide(&spd, &mut memory, &nameless()), decided);
    }
    // One that shows its protocol needs none, and of IPv4 all do.
    let shown = Packet {
        protocol: protocol::UDP,
        ..nameless()
    };
    let mut nothing = Memory::new(0, SECOND);
    let found = decide(&spd, &mut nothing, &shown).index();
    assert_eq!(found, Some(PolicyIndex(0)));
    let four = Packet {
        protocol: protocol::DESTINATION_OPTIONS,
        ..udp(Fragment::Later, 0)
    };
    assert_eq!(decide(&spd, &mut nothing, &four), Decision::Nothing);
}

//= test T121
//= test T125
#[test]
fn an_identification_that_comes_again_is_the_later_datagrams() {
    let spd = spd(&[(Action::Bypass, port(53)), (Action::Protect, port(54))]);
    let mut memory = memory();
    let later = udp(Fragment::Later, 0);
    for (port, decided) in [
        (53, Decision::Bypass(PolicyIndex(0))),
        (54, Decision::Fragment),
        (53, Decision::Bypass(PolicyIndex(0))),
    ] {
        let first = decide(&spd, &mut memory, &udp(Fragment::First, port));
        assert!(first.index().is_some());
        assert_eq!(decide(&spd, &mut memory, &later), decided, "{port}");
    }
}

#[test]
fn a_packet_lies_in_a_pair_of_addresses_whatever_its_ports() {
    let selector = Selector {
        local: crate::policy::AddressSelector::Ranges(vec![crate::policy::AddressRange {
            version: Version::V4,
            first: 0xffff_0a01_0000,
            last: 0xffff_0a01_ffff,
        }]),
        ..port(53)
    };
    let spd = spd(&[(Action::Protect, selector)]);
    let mut packet = udp(Fragment::Whole, 99);
    assert_eq!(spd.first(&packet), None);
    assert!(spd.touches(&packet));
    packet.source = 0xffff_0a02_0000;
    assert!(!spd.touches(&packet));
}

proptest! {
    //= test T98
    #[test]
    fn without_fragments_the_answer_is_the_ordered_lists(
        selectors in prop::collection::vec((0_u32..4, selector()), 0..30),
        packets in prop::collection::vec(packet(), 30),
    ) {
        let policies = (0..)
            .zip(selectors)
            .map(|(index, (priority, selector))| {
                policy(index, priority, Action::Bypass, selector)
            })
            .collect();
        let spd = Spd::new(Direction::In, policies);
        let mut memory = memory();
        for packet in packets {
            let first = spd.position(&packet);
            let decision = spd.decide(&packet, first, Passage::Clear, &mut memory, Time(0));
            let plain = spd.database().first(&packet);
            let blind = spd.database().first_blind(&packet);
            if packet.fragment == Fragment::Whole {
                let wanted = plain.and_then(|at| spd.policies().get(at));
                prop_assert_eq!(decision.index(), wanted.map(|policy| policy.index));
            } else if plain == blind {
                // Nobody in front was passed over for its ports.
                let wanted = plain.and_then(|at| spd.policies().get(at));
                if wanted.is_none_or(|policy| !looks_at_ports(policy)) {
                    prop_assert_eq!(decision.index(), wanted.map(|policy| policy.index));
                }
            }
        }
    }
}

/// An SPD of IPv6 without ports: policies by protocol, or for all of them.
fn by_protocol() -> impl Strategy<Value = Vec<(Action, Option<u8>)>> {
    let action = prop_oneof![
        Just(Action::Protect),
        Just(Action::Bypass),
        Just(Action::Discard)
    ];
    let named = prop_oneof![
        2 => Just(None),
        3 => Just(Some(protocol::UDP)),
        3 => Just(Some(protocol::TCP))
    ];
    prop::collection::vec((action, named), 0..6)
}

proptest! {
    /// The plain model: the first policy that may be the datagram's decides; if it names a
    /// protocol, by what the first fragment met, and protects nothing that it cannot see.
    //= test T98
    //= test T121
    #[test]
    fn a_hidden_protocol_goes_the_way_of_the_plain_model(
        entries in by_protocol(),
        first in prop::option::of(prop_oneof![Just(protocol::UDP), Just(protocol::TCP)]),
    ) {
        let selectors = entries.iter().map(|(action, named)| {
            let selector = Selector { protocol: *named, ..ANY };
            (*action, selector)
        });
        let spd = spd(&selectors.collect::<Vec<_>>());
        let mut memory = memory();
        let takes = |number: u8| {
            let mut all = entries.iter();
            all.position(|(_, named)| named.is_none_or(|named| named == number))
        };
        let met = first.map(|number| {
            let decision = decide(&spd, &mut memory, &six(number, 9)).index();
            let at = takes(number);
            assert_eq!(decision.map(|index| index.0 as usize), at);
            at
        });
        let decision = decide(&spd, &mut memory, &nameless());
        let for_all = entries.iter().position(|(_, named)| named.is_none());
        let reached = for_all.map_or(&entries[..], |at| &entries[..at]);
        if reached.is_empty() {
            prop_assert_eq!(decision.index().map(|index| index.0 as usize), for_all);
            return Ok(());
        }
        let index = |at: usize| PolicyIndex(u32::try_from(at).unwrap_or(u32::MAX));
        match met {
            None => prop_assert_eq!(decision, Decision::Fragment),
            Some(at) if at == for_all => {
                prop_assert_eq!(decision.index().map(|index| index.0 as usize), for_all);
            }
            Some(Some(at)) => {
                let expected = match entries[at].0 {
                    Action::Bypass => Decision::Bypass(index(at)),
                    Action::Discard => Decision::Discard(index(at)),
                    Action::Protect => Decision::Fragment,
                };
                prop_assert_eq!(decision, expected);
            }
            Some(None) => prop_assert_eq!(decision, Decision::Fragment),
        }
    }
}
