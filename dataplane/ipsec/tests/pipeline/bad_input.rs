//! Every truncation and every single-bit flip of valid packets of each kind, and authentic
//! nonsense counted through: one end each, nothing moved, nothing delivered that was not sent.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::packet::parse;
use ipsec::sa::association::{Mode, UdpEncapsulation};
use ipsec::verdict::DropReason;
use ipsec::wire::checksum::Sum;

use crate::authentication_header as ah;
use crate::gateway::{A, A6, B, B6, Gateway, In, crafted, pair, pair_of, suites, with_suite};
use crate::packets::{Udp, between, v4, v6};

/// The verdict on bytes that may not even parse, and what was delivered.
pub(crate) fn meet(gateway: &mut Gateway, packet: &[u8]) -> (In, Vec<u8>) {
    match parse(packet) {
        Ok(parsed) => {
            let packet = packet[..usize::from(parsed.length)].to_vec();
            gateway.receive(&[packet]).remove(0)
        }
        Err(reason) => (In::Drop(reason), Vec::new()),
    }
}

/// A kind of packet: addresses of the tunnel, content, algorithms, encapsulation.
#[derive(Clone, Copy)]
struct Kind {
    outer: [&'static str; 2],
    inner: fn(usize) -> Udp,
    suite: usize,
    udp: bool,
    esn: bool,
}

impl Kind {
    fn all() -> Vec<Self> {
        let mut kinds = Vec::new();
        for outer in [[A, B], [A6, B6]] {
            for inner in [v4 as fn(usize) -> Udp, v6] {
                for suite in 0..suites().len() {
                    for (udp, esn) in [(false, false), (true, false), (false, true)] {
                        kinds.push(Self {
                            outer,
                            inner,
                            suite,
                            udp,
                            esn,
                        });
                    }
                }
            }
        }
        kinds
    }

    fn gateways(self) -> (Gateway, Gateway) {
        let [source, destination] = self.outer;
        pair_of(source, destination, |sa| {
            let blank = crate::gateway::sa(sa.direction, sa.spi, source, destination);
            *sa = with_suite(blank, suites()[self.suite]);
            sa.esn = self.esn;
            sa.udp_encapsulation = self.udp.then_some(UdpEncapsulation {
                source_port: 4500,
                destination_port: 4500,
            });
        })
    }

    /// Length of the outer IP header.
    fn header(self) -> usize {
        if self.outer == [A, B] { 20 } else { 40 }
    }

    /// Offset of ESP.
    fn esp(self) -> usize {
        self.header() + if self.udp { 8 } else { 0 }
    }

    /// Whether a receiver may open the packet although that byte was changed on the way: what
    /// RFC 4301 does not compare, in headers that nothing protects.
    fn may_change(self, byte: usize) -> bool {
        let at = byte.wrapping_sub(self.header());
        let in_udp = self.udp && (at < 2 || (6..8).contains(&at));
        let in_ipv6 = self.header() == 40 && (byte < 4 || byte == 7 || (8..24).contains(&byte));
        in_udp || in_ipv6
    }
}

/// The SA as it was at first.
fn is_untouched(gateway: &Gateway) -> bool {
    let published = &gateway.sa("1001-In").published;
    published.packets.load(Relaxed) == 0 && published.sequence.load(Relaxed) == 0
}

//= test T28
//= test T31
#[test]
fn every_bit_counts() {
    let (mut flips, mut opened) = (0_u32, 0_u32);
    for kind in Kind::all() {
        let (mut a, mut b) = kind.gateways();
        let inner = (kind.inner)(56);
        let sealed = a.seal(&inner.bytes());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 0x80 >> (bit % 8);
            let (verdict, delivered) = meet(&mut b, &changed);
            flips += 1;
            if verdict == In::Opened {
                assert!(kind.may_change(bit / 8), "bit {bit} did not count");
                let same = delivered == inner.lowered();
                assert!(same || kind.header() == 40 && bit < 16, "bit {bit}");
                opened += 1;
                b = kind.gateways().1;
                continue;
            }
            assert!(is_untouched(&b), "bit {bit}: {verdict:?}");
            let In::Drop(reason) = verdict else {
                // A clear packet to a stranger, or to the machine: never what was inside.
                assert!(bit / 8 < kind.esp(), "bit {bit}: {verdict:?}");
                assert!(matches!(verdict, In::Host | In::Forward), "{verdict:?}");
                continue;
            };
            let at = (bit / 8).wrapping_sub(kind.esp());
            let expected: &[DropReason] = match at {
                // The SPI, the number, the rest. Marker and keepalive aside.
                0..4 => &[DropReason::NoSa, DropReason::WrongDirection],
                4..8 => &[DropReason::Authentication, DropReason::Replay],
                _ if bit / 8 >= kind.esp() => &[DropReason::Authentication],
                _ => &DropReason::ALL,
            };
            assert!(expected.contains(&reason), "bit {bit}: {reason}");
        }
        assert_eq!(meet(&mut b, &sealed).0, In::Opened);
    }
    assert!(flips > 300_000 && opened > 30_000, "{flips} {opened}");
}

//= test T34
#[test]
fn no_shorter_packet_is_opened() {
    let mut cuts = 0_u32;
    for kind in Kind::all() {
        let (mut a, mut b) = kind.gateways();
        let sealed = a.seal(&(kind.inner)(56).bytes());
        for length in 0..sealed.len() {
            let cut = &sealed[..length];
            // As a frame that ends early, and as a packet that says so itself.
            assert_eq!(meet(&mut b, cut).0, In::Drop(DropReason::Malformed));
            cuts += 1;
            if length < kind.header() {
                continue;
            }
            let honest = shortened(cut, kind);
            let (verdict, _) = meet(&mut b, &honest);
            let ended = matches!(
                verdict,
                In::Drop(DropReason::Malformed | DropReason::Authentication)
            );
            // Less than a UDP header is clear, and none or one byte in it is the machine's.
            let is_clear = kind.udp && length < kind.esp() && matches!(verdict, In::Drop(_));
            let is_for_host = kind.udp && length <= kind.esp() + 1 && verdict == In::Host;
            assert!(ended || is_clear || is_for_host, "{length}: {verdict:?}");
            assert!(is_untouched(&b));
            cuts += 1;
        }
        assert_eq!(meet(&mut b, &sealed).0, In::Opened);
    }
    assert!(cuts > 60_000, "{cuts}");
}

/// AH covers the outer header too: of IPv6 only what routers change may differ.
//= test T44
//= test T48
#[test]
fn every_bit_under_ah_counts() {
    let mut flips = 0_u32;
    for six in [false, true] {
        for mode in [Mode::Tunnel, Mode::Transport] {
            for (suite, esn) in ah::suites().into_iter().zip([false, true].repeat(8)) {
                let (mut a, mut b) = ah::gateways(six, mode, suite, esn);
                let sealed = a.seal(&ah::sent(six, mode, 56).bytes());
                for bit in 0..sealed.len() * 8 {
                    let mut changed = sealed.clone();
                    changed[bit / 8] ^= 0x80 >> (bit % 8);
                    let (verdict, _) = meet(&mut b, &changed);
                    flips += 1;
                    if verdict == In::Opened {
                        assert!(six && (bit / 8 < 4 || bit / 8 == 7), "bit {bit}");
                        b = ah::gateways(six, mode, suite, esn).1;
                        continue;
                    }
                    assert!(is_untouched(&b), "bit {bit}: {verdict:?}");
                    let behind = bit / 8 >= if six { 40 } else { 20 };
                    assert!(!behind || matches!(verdict, In::Drop(_)), "bit {bit}");
                }
                for length in 0..sealed.len() {
                    let cut = meet(&mut b, &sealed[..length]).0;
                    assert_eq!(cut, In::Drop(DropReason::Malformed));
                }
                assert_eq!(meet(&mut b, &sealed).0, In::Opened);
            }
        }
    }
    assert!(flips > 20_000, "{flips}");
}

/// The packet with lengths that fit what is left of it.
fn shortened(cut: &[u8], kind: Kind) -> Vec<u8> {
    let mut packet = cut.to_vec();
    let length = packet.len() as u16;
    if kind.header() == 20 {
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        resum(&mut packet[..20]);
    } else {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
    if kind.udp
        && let Some(field) = packet.get_mut(kind.header() + 4..kind.header() + 6)
    {
        field.copy_from_slice(&(length - kind.header() as u16).to_be_bytes());
    }
    packet
}

pub(crate) fn resum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = Sum::ZERO.bytes(header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An authentic text's end: it counts as received, whatever becomes of it.
fn authentic(number: u64, body: &[u8], trailer: &[u8]) -> In {
    let (a, mut b) = pair(|_| {});
    let verdict = b.verdict(&crafted(&a, number, body, trailer));
    assert_eq!(b.sa("1001-In").published.packets.load(Relaxed), 1);
    verdict
}

const BAD: In = In::Drop(DropReason::BadPadding);

//= test T36
#[test]
fn every_next_header_ends_in_its_own_way() {
    let inner = v4(62).bytes();
    for next in 0..=255_u8 {
        let expected = match next {
            4 => In::Opened,
            41 => BAD,
            59 => In::Consumed(ipsec::inbound::Consumed::Dummy),
            _ => In::Drop(DropReason::InnerUnsupported),
        };
        assert_eq!(authentic(7, &inner, &[0, next]), expected, "{next}");
    }
}

//= test T32
//= test T33
#[test]
fn every_padding_length_is_right_or_refused() {
    let inner = v4(60).bytes();
    for length in 0..=255_u8 {
        // The content is what a sender of two bytes of padding writes.
        let verdict = authentic(7, &inner, &[1, 2, length, 4]);
        // 0: two bytes of TFC. 2: as it should be. Else the count does not start at 1.
        let expected = if matches!(length, 0 | 2) {
            In::Opened
        } else {
            BAD
        };
        assert_eq!(verdict, expected, "{length}");
    }
    for byte in 0..=255_u8 {
        let expected = if byte == 2 { In::Opened } else { BAD };
        assert_eq!(authentic(7, &inner, &[1, byte, 2, 4]), expected, "{byte}");
    }
}

/// Inner lengths that lie: nothing shorter than its header, nothing longer than what came.
//= test T12
#[test]
fn every_inner_length_is_within_the_text_or_refused() {
    let (a, mut b) = pair(|_| {});
    for (number, length) in (1..).zip(0..=u16::MAX) {
        let mut inner = v4(62).bytes();
        inner[2..4].copy_from_slice(&length.to_be_bytes());
        resum(&mut inner[..20]);
        // 20 bytes of header; UDP ports must be there to be judged.
        let expected = if (24..=62).contains(&length) {
            In::Opened
        } else {
            BAD
        };
        let verdict = b.verdict(&crafted(&a, number, &inner, &[0, 4]));
        assert_eq!(verdict, expected, "{length}");
    }
    let (a, mut b) = pair(|_| {});
    for (number, length) in (1..).zip(0..=u16::MAX) {
        let mut inner = v6(82).bytes();
        inner[4..6].copy_from_slice(&length.to_be_bytes());
        let expected = if (4..=42).contains(&length) {
            In::Opened
        } else {
            BAD
        };
        let verdict = b.verdict(&crafted(&a, number, &inner, &[0, 41]));
        assert_eq!(verdict, expected, "{length}");
    }
}

#[test]
fn every_inner_version_and_header_length_is_judged() {
    for first in 0..=255_u8 {
        let mut inner = v4(62).bytes();
        inner[0] = first;
        let words = usize::from(first & 15);
        if first >> 4 == 4 && words >= 5 {
            resum(&mut inner[..words * 4]);
        }
        // Options take the place of ports: 62 bytes hold the longest header and two more.
        let whole = first >> 4 == 4 && (5..=14).contains(&words);
        let expected = if whole { In::Opened } else { BAD };
        assert_eq!(authentic(7, &inner, &[0, 4]), expected, "{first:#x}");
    }
}

/// Options of the outer header are skipped whatever they are; beyond the header there are none.
#[test]
fn option_bombs_are_skipped_or_malformed() {
    let (mut a, _) = pair(|_| {});
    let sealed = a.seal(&v4(56).bytes());
    for words in 0..=10_usize {
        for fill in [0_u8, 1, 7, 0x83, 0x94, 0xff] {
            let (_, mut b) = pair(|_| {});
            let mut packet = sealed[..20].to_vec();
            packet.extend(vec![fill; words * 4]);
            packet.extend(&sealed[20..]);
            packet[0] = 0x45 + words as u8;
            let length = packet.len() as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            resum(&mut packet[..20 + words * 4]);
            assert_eq!(meet(&mut b, &packet).0, In::Opened, "{words} of {fill:#x}");
        }
    }
}

/// Extension headers up to the limit are walked, beyond it the packet is malformed.
#[test]
fn a_chain_of_extension_headers_has_an_end() {
    let [source, destination] = [A6, B6];
    for kind in [0_u8, 43, 60] {
        for count in 0..20_usize {
            let (mut a, mut b) = pair_of(source, destination, |_| {});
            let sealed = a.seal(&v6(72).bytes());
            let mut payload = Vec::new();
            for index in 0..count {
                let next = if index + 1 == count { 50 } else { kind };
                payload.extend([next, 0, 1, 4, 0, 0, 0, 0]);
            }
            payload.extend(&sealed[40..]);
            let first = if count == 0 { 50 } else { kind };
            let packet = between(source, destination, 0).with(first, &payload);
            let expected = if count <= ipsec::limits::EXTENSION_HEADERS {
                In::Opened
            } else {
                In::Drop(DropReason::Malformed)
            };
            assert_eq!(meet(&mut b, &packet).0, expected, "{count} of {kind}");
        }
    }
}

/// Nobody gets around the end of the number space: not with what is left of the window read as
/// the next epoch, not with number 0.
//= test T30
#[test]
fn wrap_attempts_end_as_what_they_are() {
    let near_end = u64::from(u32::MAX) - 3;
    let (a, mut b) = pair(|sa| sa.sequence = near_end);
    let inner = v4(62).bytes();
    let mut verdict = |number| b.verdict(&crafted(&a, number, &inner, &[0, 4]));
    assert_eq!(verdict(near_end + 3), In::Opened);
    for number in [1 << 32, (1 << 32) + 1, (1 << 32) + 100] {
        assert_eq!(verdict(number), In::Drop(DropReason::Replay), "{number}");
    }
    let (a, mut b) = pair(|sa| {
        sa.esn = true;
        sa.sequence = near_end;
    });
    let mut verdict = |number| b.verdict(&crafted(&a, number, &inner, &[0, 4]));
    assert_eq!(verdict((1 << 32) + 5), In::Opened);
    // The same low half in the epoch before, and one after: neither is what was authenticated.
    for number in [5, 6 + (2 << 32), 2_u64.pow(33)] {
        let ended = verdict(number);
        let reasons = [DropReason::Authentication, DropReason::Replay];
        assert!(
            matches!(ended, In::Drop(reason) if reasons.contains(&reason)),
            "{number}: {ended:?}"
        );
    }
    assert_eq!(verdict((1 << 32) + 6), In::Opened);
}
