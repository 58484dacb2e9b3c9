//! What goes to the unprotected side: each way a packet can end, sizes, counters.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::outbound::largest_inner;
use ipsec::policy::{Action, PolicyParameters, Selector};
use ipsec::sa::association::{Direction, DontFragment, SaParameters, UdpEncapsulation};
use ipsec::tables::Unmatched;
use ipsec::verdict::DropReason;
use proptest::prelude::*;

use crate::gateway::{
    A, A6, B, B6, Gateway, In, Out, addresses, pair, pair_of, policy, sa, suites, with_suite,
};
use crate::packets::{Udp, between, v4, v6};

const fn drop(reason: DropReason) -> Out {
    Out::Drop(reason)
}

fn verdict(gateway: &mut Gateway, packet: &[u8], mtu: u16) -> Out {
    gateway.send(&[packet.to_vec()], mtu).remove(0).0
}

const DF: u16 = 0x4000;

//= test T100
//= test T51
#[test]
fn policy_decides_and_counts() {
    let network = |name, action, first, last| PolicyParameters {
        selector: Selector {
            remote: addresses(first, last),
            ..Selector::any()
        },
        ..policy(name, Direction::Out, action, &[])
    };
    let policies = [
        network("clear", Action::Bypass, "10.4.0.0", "10.4.255.255"),
        network("not", Action::Discard, "10.3.0.0", "10.3.255.255"),
    ];
    let mut a = Gateway::new(vec![], &policies, &[A]);
    let mut end =
        |destination| verdict(&mut a, &between("10.1.0.1", destination, 60).bytes(), 1500);
    assert_eq!(end("10.4.0.1"), Out::Bypass);
    assert_eq!(end("10.3.0.1"), drop(DropReason::PolicyDiscard));
    assert_eq!(end("10.5.0.1"), drop(DropReason::NoPolicy));
    assert_eq!(end(A), Out::Host);
    assert_eq!(end("224.0.0.1"), Out::Host);
    assert_eq!([a.count(0), a.count(1)], [1, 1]);
    assert_eq!(a.counts.iter().map(|count| count.read().0).sum::<u64>(), 5);
    assert_eq!(
        a.counts.iter().map(|count| count.read().1).sum::<u64>(),
        300
    );
}

#[test]
fn unmatched_traffic_goes_on_where_no_policy_touches_it() {
    let mut narrow = policy("to", Direction::Out, Action::Discard, &[]);
    narrow.selector.remote = addresses("10.2.0.0", "10.2.255.255");
    narrow.selector.protocol = Some(6);
    let mut a = Gateway::new(vec![], &[narrow], &[A]);
    a.tables.unmatched = Unmatched::Kernel;
    let inside = between("10.1.0.1", "10.2.0.1", 60).bytes();
    assert_eq!(verdict(&mut a, &inside, 1500), drop(DropReason::NoPolicy));
    let outside = between("10.1.0.1", "10.9.0.1", 60).bytes();
    assert_eq!(verdict(&mut a, &outside, 1500), Out::Bypass);
    assert_eq!(a.verdict(&inside), In::Forward);
}

#[test]
fn the_machines_own_key_exchange_is_bypassed() {
    let (mut a, _) = pair(|_| {});
    let ike = Udp {
        ports: (500, 500),
        ..between(A, B, 60)
    }
    .bytes();
    assert_eq!(
        a.outbound(std::slice::from_ref(&ike), 1500, true)
            .remove(0)
            .0,
        Out::Bypass
    );
    assert_eq!(verdict(&mut a, &ike, 1500), Out::Host);
}

/// Sequence, then hop limit, then size: a packet with all three faults shows their order.
#[test]
fn faults_are_found_in_their_order() {
    let faulty = Udp {
        hop_limit: 1,
        flags_and_offset: DF,
        ..v4(1500)
    }
    .bytes();
    let (mut a, _) = pair(|sa| sa.lifetime.hard_packets = 1);
    a.seal(&v4(60).bytes());
    assert_eq!(verdict(&mut a, &faulty, 1500), drop(DropReason::SaExpired));
    let (mut a, _) = pair(|sa| sa.sequence = u32::MAX.into());
    assert_eq!(
        verdict(&mut a, &faulty, 1500),
        drop(DropReason::SequenceExhausted)
    );
    let (mut a, _) = pair(|_| {});
    a.sa("1001-Out").published.reserved_end.store(0, Relaxed);
    assert_eq!(
        verdict(&mut a, &faulty, 1500),
        drop(DropReason::NoReservation)
    );
    a.sa("1001-Out").published.reserved_end.store(9, Relaxed);
    assert_eq!(verdict(&mut a, &faulty, 1500), drop(DropReason::HopLimit));
    let large = Udp {
        flags_and_offset: DF,
        ..v4(1500)
    }
    .bytes();
    assert!(matches!(verdict(&mut a, &large, 1500), Out::TooBig(_)));
    // Nothing of this used up a number.
    let sealed = a.seal(&v4(60).bytes());
    assert_eq!(sealed[24..28], [0, 0, 0, 1]);
}

//= test T04
#[test]
fn limits_hold_within_one_batch() {
    let burst = vec![v4(60).bytes(); 8];
    let ends = |a: &mut Gateway| -> Vec<Out> {
        a.send(&burst, 1500)
            .into_iter()
            .map(|(end, _)| end)
            .collect()
    };
    let (mut a, _) = pair(|sa| sa.sequence = u64::from(u32::MAX) - 3);
    let verdicts = ends(&mut a);
    assert!(
        verdicts[..3]
            .iter()
            .all(|end| matches!(end, Out::Sealed(_)))
    );
    assert_eq!(verdicts[3..], [drop(DropReason::SequenceExhausted); 5]);
    let (mut a, _) = pair(|sa| sa.lifetime.hard_packets = 3);
    let verdicts = ends(&mut a);
    assert!(
        verdicts[..3]
            .iter()
            .all(|end| matches!(end, Out::Sealed(_)))
    );
    assert_eq!(verdicts[3..], [drop(DropReason::SaExpired); 5]);
    let (mut a, _) = pair(|_| {});
    a.sa("1001-Out").published.reserved_end.store(3, Relaxed);
    let verdicts = ends(&mut a);
    assert_eq!(verdicts[3..], [drop(DropReason::NoReservation); 5]);
    assert!(!a.wanted.is_empty());
    assert_eq!(a.sa("1001-Out").published.packets.load(Relaxed), 3);
    assert_eq!(a.sa("1001-Out").published.bytes.load(Relaxed), 180);
}

//= test T61
//= test T132
#[test]
fn sizes_end_in_icmp_or_fragments_by_the_inner_packet() {
    let (mut a, _) = pair(|_| {});
    let limit = largest_inner(&[a.sa("1001-Out")], 1500);
    let fits = usize::from(limit);
    let df = |length| {
        Udp {
            flags_and_offset: DF,
            ..v4(length)
        }
        .bytes()
    };
    assert!(matches!(verdict(&mut a, &df(fits), 1500), Out::Sealed(_)));
    assert_eq!(verdict(&mut a, &df(fits + 1), 1500), Out::TooBig(limit));
    assert_eq!(
        verdict(&mut a, &v4(fits + 1).bytes(), 1500),
        Out::Fragment(limit)
    );
    assert!(matches!(
        verdict(&mut a, &v6(fits).bytes(), 1500),
        Out::Sealed(_)
    ));
    assert_eq!(
        verdict(&mut a, &v6(fits + 1).bytes(), 1500),
        Out::TooBig(limit)
    );
    // Behind a narrow link: IPv6 is never told less than 1280, and up to there it goes.
    assert_eq!(verdict(&mut a, &v6(1281).bytes(), 1280), Out::TooBig(1280));
    let (end, sealed) = a.send(&[v6(1280).bytes()], 1280).remove(0);
    assert!(matches!(end, Out::Sealed(length) if length > 1280));
    assert_eq!(sealed[6] & 0x40, 0, "what is to be cut has DF clear");
}

//= test T55
//= test T70
#[test]
fn the_newest_alternative_sends() {
    let sas = vec![
        sa(Direction::Out, 0x1001, A, B),
        sa(Direction::Out, 0x1002, A, B),
    ];
    let to = policy(
        "to",
        Direction::Out,
        Action::Protect,
        &["1001-Out", "1002-Out"],
    );
    let mut a = Gateway::new(sas, std::slice::from_ref(&to), &[A]);
    assert_eq!(a.seal(&v4(60).bytes())[20..24], [0, 0, 0x10, 2]);
}

/// The SPI of a sealed packet, or why there is none.
fn spi(end: &(Out, Vec<u8>)) -> Result<u32, DropReason> {
    match end {
        (Out::Sealed(_), bytes) => Ok(u32::from_be_bytes(bytes[20..24].try_into().unwrap())),
        (Out::Drop(reason), _) => Err(*reason),
        other => panic!("{other:?}"),
    }
}

/// A gateway whose policy has these SAs to the same peer, the last one the newest.
fn alternatives(sas: Vec<SaParameters>) -> Gateway {
    let names: Vec<String> = sas.iter().map(|sa| sa.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let to = policy("to", Direction::Out, Action::Protect, &names);
    Gateway::new(sas, &[to], &[A])
}

/// `count` packets in one batch: whose SPI each leaves with.
fn leave(gateway: &mut Gateway, count: usize) -> Vec<Result<u32, DropReason>> {
    let packets = vec![v4(60).bytes(); count];
    gateway.send(&packets, 1500).iter().map(spi).collect()
}

//= test T55
#[test]
fn a_dead_newest_leaves_it_to_the_next_without_losing_a_packet() {
    use DropReason::{SaExpired, SequenceExhausted};
    let newest = |change: fn(&mut SaParameters)| {
        let [old, mut new] = [0x1001, 0x1002].map(|spi| sa(Direction::Out, spi, A, B));
        change(&mut new);
        alternatives(vec![old, new])
    };
    let [old, new] = [Ok(0x1001), Ok(0x1002)];
    let handed_on = [new, new, new, old, old];
    let mut a = newest(|sa| sa.lifetime.hard_packets = 3);
    assert_eq!(leave(&mut a, 5), handed_on);
    assert_eq!(leave(&mut a, 1), [old]);
    // The packet that reaches the limit still passes.
    let mut a = newest(|sa| sa.lifetime.hard_bytes = 121);
    assert_eq!(leave(&mut a, 5), handed_on);
    let mut a = newest(|sa| sa.sequence = u64::from(u32::MAX) - 3);
    assert_eq!(leave(&mut a, 5), handed_on);
    assert_eq!(leave(&mut a, 1), [old]);
    // What may come back is no death.
    let mut a = newest(|_| {});
    a.sa("1002-Out").published.reserved_end.store(1, Relaxed);
    assert_eq!(leave(&mut a, 1), [new]);
    assert_eq!(leave(&mut a, 1), [Err(DropReason::NoReservation)]);
    // Nothing left: the first choice says why.
    let mut last = [0x1001, 0x1002].map(|spi| sa(Direction::Out, spi, A, B));
    last[0].lifetime.hard_packets = 1;
    last[1].sequence = u64::from(u32::MAX) - 1;
    let mut a = alternatives(last.into());
    let nothing = Err(SequenceExhausted);
    assert_eq!(leave(&mut a, 4), [new, old, nothing, nothing]);
    let mut only = sa(Direction::Out, 0x1001, A, B);
    only.lifetime.hard_packets = 1;
    let mut a = alternatives(vec![only]);
    assert_eq!(leave(&mut a, 2), [old, Err(SaExpired)]);
}

//= test T70
#[test]
fn each_worker_has_an_sa_of_its_own_and_falls_back_to_one_for_all() {
    let sas = || {
        let mut sas = [0x1001, 0x1002, 0x1003, 0x1004].map(|spi| sa(Direction::Out, spi, A, B));
        for own in &mut sas[1..3] {
            own.per_worker = true;
        }
        sas
    };
    let first = |a: &Gateway, worker| {
        let policy = &a.tables.outbound.policies()[0];
        let spis = policy.choices(worker).map(|bundle| {
            let sas = a.tables.sas(bundle).unwrap();
            sas.outer.parameters.spi
        });
        spis.collect::<Vec<_>>()
    };
    let a = alternatives(sas().into());
    for (worker, own) in [(0, 0x1002), (1, 0x1003), (2, 0x1002)] {
        let order = [own, 0x1004, 0x1001, 0x1003, 0x1002];
        assert_eq!(first(&a, worker), order, "worker {worker}");
    }
    // On the wire, as worker 0: its own, then what is for all, and last the other worker's.
    let mut mortal = sas();
    for sa in &mut mortal {
        sa.lifetime.hard_packets = 1;
    }
    let mut a = alternatives(mortal.into());
    let order = [0x1002, 0x1004, 0x1001, 0x1003].map(Ok);
    assert_eq!(leave(&mut a, 5)[..4], order);
}

//= test T122
#[test]
fn an_icmp_error_rides_on_the_sa_of_the_traffic_that_it_answers() {
    let mut to = policy("to", Direction::Out, Action::Protect, &["1001-Out"]);
    to.selector.local = addresses("10.1.0.0", "10.1.255.255");
    to.selector.remote = addresses("10.2.0.0", "10.2.255.255");
    let mut a = Gateway::new(vec![sa(Direction::Out, 0x1001, A, B)], &[to], &[A]);
    let error = |about: &Udp| {
        let mut icmp = vec![11, 0, 0, 0, 0, 0, 0, 0];
        icmp.extend(about.bytes());
        between("10.9.9.9", "10.2.0.1", 0).with(1, &icmp)
    };
    let answer = error(&between("10.2.0.1", "10.1.0.1", 40));
    assert!(matches!(verdict(&mut a, &answer, 1500), Out::Sealed(_)));
    let foreign = error(&between("10.2.0.1", "10.7.0.1", 40));
    assert_eq!(verdict(&mut a, &foreign, 1500), drop(DropReason::NoPolicy));
    assert_eq!(a.count(0), 1);
}

#[test]
fn without_a_buffer_no_number_is_spent() {
    let (mut a, _) = pair(|_| {});
    let mut bytes = v4(60).bytes();
    let packet = ipsec::packet::parse(&bytes).unwrap();
    let mut item = ipsec::outbound::Item::piece(&mut bytes, packet, false, a.sa("1001-Out"), 1500);
    ipsec::outbound::fit(std::slice::from_mut(&mut item));
    assert_eq!(item.verdict, Out::Protect);
    let sealed = a.seal(&v4(60).bytes());
    assert_eq!(sealed[24..28], [0, 0, 0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The largest inner packet fits and one byte more does not, whatever the SA.
    //= test T06
    #[test]
    fn the_overhead_is_exact(
        suite in 0..suites().len(), mtu in 1280_u16..9000, six: bool, udp: bool,
    ) {
        let outer = if six { (A6, B6) } else { (A, B) };
        let (mut a, _) = pair_of(outer.0, outer.1, |sa| {
            let blank = crate::gateway::sa(sa.direction, sa.spi, outer.0, outer.1);
            *sa = with_suite(blank, suites()[suite]);
            sa.dont_fragment = DontFragment::Set;
            sa.udp_encapsulation = udp.then_some(UdpEncapsulation {
                source_port: 4500,
                destination_port: 4500,
            });
        });
        let limit = largest_inner(&[a.sa("1001-Out")], mtu);
        let (end, sealed) = a.send(&[v4(limit.into()).bytes()], mtu).remove(0);
        prop_assert!(matches!(end, Out::Sealed(_)), "{:?}", end);
        prop_assert!(sealed.len() <= mtu.into());
        prop_assert!(sealed.len() + suites()[suite].alignment() > mtu.into());
        let larger = v4(usize::from(limit) + 1).bytes();
        prop_assert_eq!(verdict(&mut a, &larger, mtu), Out::Fragment(limit));
    }
}

//= test T119
#[test]
fn icmp_that_is_no_error_goes_by_the_policies_like_any_other() {
    let mut echo = between("10.1.0.1", "10.2.0.1", 0).with(1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    echo.truncate(28);
    let mut a = Gateway::new(vec![], &[], &[A]);
    assert_eq!(verdict(&mut a, &echo, 1500), drop(DropReason::NoPolicy));
    let mut clear = policy("clear", Direction::Out, Action::Bypass, &[]);
    clear.selector.protocol = Some(17);
    let mut a = Gateway::new(vec![], &[clear.clone()], &[A]);
    assert_eq!(verdict(&mut a, &echo, 1500), drop(DropReason::NoPolicy));
    clear.selector.protocol = Some(1);
    let mut a = Gateway::new(vec![], &[clear], &[A]);
    assert_eq!(verdict(&mut a, &echo, 1500), Out::Bypass);
}
