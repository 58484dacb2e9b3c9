//! AH in both modes, what may and may not change on its way, ICV fields of other lengths.

use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::packet::{parse, protocol};
use ipsec::sa::association::{Mode, Protocol, SaParameters};
use ipsec::verdict::DropReason;
use ipsec::wire::ah;

use crate::gateway::{A, A6, B, B6, Gateway, In, Out, pair_of, with_suite};
use crate::packets::{self, between};

pub(crate) fn suites() -> Vec<Suite> {
    let all = Integrity::ALL.map(|integrity| Suite {
        encryption: Encryption::Null,
        integrity: Some(integrity),
    });
    all.to_vec()
}

fn ah(parameters: &mut SaParameters, mode: Mode, suite: Suite, esn: bool) {
    parameters.protocol = Protocol::Ah;
    parameters.mode = mode;
    parameters.esn = esn;
    parameters.encryption_key = ipsec::secret::Secret::default();
    *parameters = with_suite(
        std::mem::replace(
            parameters,
            crate::gateway::sa(parameters.direction, 0x1001, A, B),
        ),
        suite,
    );
}

pub(crate) fn gateways(six: bool, mode: Mode, suite: Suite, esn: bool) -> (Gateway, Gateway) {
    let (source, destination) = if six { (A6, B6) } else { (A, B) };
    pair_of(source, destination, |parameters| {
        ah(parameters, mode, suite, esn)
    })
}

const SHA1: Suite = Suite {
    encryption: Encryption::Null,
    integrity: Some(Integrity::Sha1_96),
};

/// What a host of the sending gateway's side sends: in transport mode from A to B.
pub(crate) fn sent(six: bool, mode: Mode, length: usize) -> packets::Udp {
    match (six, mode) {
        (false, Mode::Tunnel) => packets::v4(length),
        (true, Mode::Tunnel) => packets::v6(length),
        (false, Mode::Transport) => between(A, B, length),
        (true, Mode::Transport) => between(A6, B6, length),
    }
}

//= test T39
//= test T46
//= test T49
//= test T89
//= test T151
#[test]
fn every_algorithm_goes_there_and_back() {
    for suite in suites() {
        for six in [false, true] {
            for mode in [Mode::Tunnel, Mode::Transport] {
                for esn in [false, true] {
                    let (mut a, mut b) = gateways(six, mode, suite, esn);
                    for length in [60, 61, 100, 1279] {
                        let packet = sent(six, mode, length);
                        let sealed = a.seal(&packet.bytes());
                        let header = ah::Header::parse(&sealed[if six { 40 } else { 20 }..]);
                        let header = header.unwrap();
                        let unit = if six { 8 } else { 4 };
                        let least = 12 + suite.icv_length();
                        assert_eq!(usize::from(header.length), least.next_multiple_of(unit));
                        let next = match (mode, six) {
                            (Mode::Transport, _) => protocol::UDP,
                            (Mode::Tunnel, false) => protocol::IPV4,
                            (Mode::Tunnel, true) => protocol::IPV6,
                        };
                        assert_eq!((header.next_header, header.spi), (next, 0x1001));
                        let opened = b.receive(&[sealed]).remove(0);
                        let context = format!("{suite:?} {six} {mode:?} {esn} {length}");
                        assert_eq!(opened.0, In::Opened, "{context}");
                        assert_eq!(opened.1, packet.lowered(), "{context}");
                    }
                }
            }
        }
    }
}

/// Which bits of the packet may change on the way without harm.
fn free_bits(b: &mut impl FnMut() -> Gateway, packet: &[u8]) -> Vec<usize> {
    let mut receiver = b();
    (0..packet.len() * 8)
        .filter(|bit| {
            let mut changed = packet.to_vec();
            changed[bit / 8] ^= 0x80 >> (bit % 8);
            if packet[0] >> 4 == 4 {
                changed[10..12].fill(0);
                let sum = ipsec::wire::checksum::Sum::ZERO
                    .bytes(&changed[..20])
                    .checksum();
                changed[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            if parse(&changed).is_err() {
                return false;
            }
            let good = receiver.verdict(&changed) == In::Opened;
            if good {
                receiver = b();
            }
            good
        })
        .collect()
}

//= test T40
//= test T41
//= test T42
//= test T44
#[test]
fn what_may_change_on_the_way_may_and_nothing_else() {
    for six in [false, true] {
        let (mut a, _) = gateways(six, Mode::Transport, SHA1, false);
        let sealed = a.seal(&sent(six, Mode::Transport, 70).bytes());
        let mut fresh = || gateways(six, Mode::Transport, SHA1, false).1;
        let free = free_bits(&mut fresh, &sealed);
        // IPv4: DSCP and ECN, the unused flag, DF, TTL, and the checksum that follows from them;
        // more fragments and an offset make a fragment, which AH does not take. IPv6: traffic
        // class and flow label, hop limit.
        let expected: Vec<usize> = if six {
            (4..32).chain(56..64).collect()
        } else {
            (8..16)
                .chain([48, 49])
                .chain(64..72)
                .chain(80..96)
                .collect()
        };
        assert_eq!(free, expected, "IPv6: {six}");
    }
}

//= test T47
#[test]
fn a_fragment_is_not_opened() {
    let (mut a, mut b) = gateways(false, Mode::Tunnel, SHA1, false);
    let mut sealed = a.seal(&packets::v4(100).bytes());
    sealed[6] |= 0x20;
    sealed[10..12].fill(0);
    let sum = ipsec::wire::checksum::Sum::ZERO
        .bytes(&sealed[..20])
        .checksum();
    sealed[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(b.verdict(&sealed), In::Drop(DropReason::Fragment));
}

//= test T48
#[test]
fn numbers_count_as_in_esp() {
    let (mut a, mut b) = gateways(true, Mode::Tunnel, SHA1, false);
    let first = a.seal(&packets::v6(100).bytes());
    let mut forged = first.clone();
    forged[40 + 8..40 + 12].copy_from_slice(&[0, 1, 0, 0]);
    assert_eq!(b.verdict(&forged), In::Drop(DropReason::Authentication));
    assert_eq!(b.verdict(&first), In::Opened);
    assert_eq!(b.verdict(&first), In::Drop(DropReason::Replay));
    for _ in 0..70 {
        let next = a.seal(&packets::v6(100).bytes());
        assert_eq!(b.verdict(&next), In::Opened);
    }
    let mut left = first;
    left[40 + 8..40 + 12].copy_from_slice(&[0, 0, 0, 2]);
    assert_eq!(b.verdict(&left), In::Drop(DropReason::Replay));
}

#[test]
fn lengths_that_lie_are_malformed() {
    let (mut a, mut b) = gateways(false, Mode::Tunnel, SHA1, false);
    let sealed = a.seal(&packets::v4(100).bytes());
    for words in 0..=255_u8 {
        let mut changed = sealed.clone();
        changed[21] = words;
        let length = (usize::from(words) + 2) * 4;
        let expected = match length {
            24 => In::Opened,
            _ if length < 24 || length > sealed.len() - 20 => In::Drop(DropReason::Malformed),
            _ => In::Drop(DropReason::Authentication),
        };
        if expected != In::Opened {
            assert_eq!(b.verdict(&changed), expected, "{words}");
        }
    }
    assert_eq!(b.verdict(&sealed), In::Opened);
}

//= test T04
//= test T94
#[test]
fn a_used_up_counter_stops() {
    let (mut a, _) = pair_of(A, B, |parameters| {
        ah(parameters, Mode::Tunnel, SHA1, false);
        parameters.sequence = u64::from(u32::MAX) - 1;
    });
    let packet = packets::v4(100).bytes();
    let sealed = a.seal(&packet);
    assert_eq!(sealed[24..32], [0, 0, 0x10, 1, 0xff, 0xff, 0xff, 0xff]);
    let verdict = a.send(&[packet], 1500).remove(0).0;
    assert_eq!(verdict, Out::Drop(DropReason::SequenceExhausted));
}
