//! Every single-bit flip and every truncation of packets in transport mode, alone and in UDP, and
//! of bundles, AH over ESP first of all: each ends by the one reason that its place has, nothing
//! moves in any of the SAs, and the packet itself still opens. `bad_input` does so to tunnels.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::sa::association::{Mode, Protocol, UdpEncapsulation};
use ipsec::verdict::DropReason;

use crate::bad_input::{meet, resum};
use crate::bundles::{self, AH_TRANSPORT, AH_TUNNEL, ESP_TRANSPORT, ESP_TUNNEL};
use crate::gateway::{A, A6, B, B6, Gateway, In, pair_of, suites, with_suite};
use crate::packets::{Udp, between, v4, v6};

const MALFORMED: &[DropReason] = &[DropReason::Malformed];
const NO_SA: &[DropReason] = &[DropReason::NoSa];
const AUTHENTICATION: &[DropReason] = &[DropReason::Authentication];
const REPLAY: &[DropReason] = &[DropReason::Replay];

/// A sealed packet, and how to make receivers that have seen nothing yet.
struct Case<'a> {
    sealed: &'a [u8],
    /// What it opens as.
    opened: Vec<u8>,
    receiver: &'a dyn Fn() -> Gateway,
    /// The receiver's SAs.
    sas: &'a [&'a str],
    outermost: Protocol,
    udp: bool,
    /// ESP's: bytes around the ciphertext, and what it is a multiple of.
    around: usize,
    block: usize,
}

impl Case<'_> {
    fn six(&self) -> bool {
        self.sealed[0] >> 4 == 6
    }

    fn header(&self) -> usize {
        if self.six() { 40 } else { 20 }
    }

    /// Offset of the outermost ESP or AH.
    fn protected(&self) -> usize {
        self.header() + if self.udp { 8 } else { 0 }
    }

    /// Whether nobody compares that bit: IPv6 class, flow label and hop limit, with ESP the source
    /// as well; source port and checksum of UDP.
    fn is_free(&self, bit: usize) -> bool {
        let byte = bit / 8;
        let in_udp = byte.wrapping_sub(self.header());
        let esp = self.outermost == Protocol::Esp;
        let in_ipv6 = (4..32).contains(&bit) || byte == 7 || esp && (8..24).contains(&byte);
        self.six() && in_ipv6 || self.udp && (in_udp < 2 || (6..8).contains(&in_udp))
    }

    /// The reasons of which a flip in the ESP or AH packet has one; of headers in front of it none
    /// are named where other traffic may begin.
    fn reasons(&self, bit: usize) -> Option<&'static [DropReason]> {
        let byte = bit / 8;
        if byte < self.header() {
            // A checksum guards the header of IPv4, nothing that of IPv6.
            return (!self.six()).then_some(MALFORMED);
        }
        let at = byte.checked_sub(self.protected())?;
        let (spi, number) = match self.outermost {
            Protocol::Esp => (0..4, 4..8),
            Protocol::Ah => (4..8, 8..12),
        };
        let was_one = bit == (self.protected() + number.end) * 8 - 1;
        Some(if spi.contains(&at) {
            NO_SA
        } else if number.contains(&at) && was_one {
            // Number 1 becomes 0, which nobody sends.
            REPLAY
        } else if self.outermost == Protocol::Ah && at == 1 {
            // Its length: shorter than the ICV or longer than the packet, or another packet.
            &[DropReason::Malformed, DropReason::Authentication]
        } else {
            AUTHENTICATION
        })
    }

    fn is_untouched(&self, gateway: &Gateway) -> bool {
        self.sas.iter().all(|name| {
            let published = &gateway.sa(name).published;
            published.packets.load(Relaxed) == 0 && published.sequence.load(Relaxed) == 0
        })
    }

    /// Flips each bit; how many of the packets were opened all the same.
    fn flip(&self, context: &str) -> (u32, u32) {
        let (mut receiver, mut flips, mut opened) = ((self.receiver)(), 0, 0);
        for bit in 0..self.sealed.len() * 8 {
            let mut changed = self.sealed.to_vec();
            changed[bit / 8] ^= 0x80 >> (bit % 8);
            let (verdict, delivered) = meet(&mut receiver, &changed);
            flips += 1;
            if verdict == In::Opened {
                assert!(self.is_free(bit), "{context}: bit {bit} did not count");
                // In transport mode the header is the packet's own, free bits and all.
                assert_eq!(delivered.len(), self.opened.len(), "{context}: bit {bit}");
                let at = delivered.len() - 8;
                assert_eq!(delivered[at..], self.opened[at..], "{context}: bit {bit}");
                receiver = (self.receiver)();
                opened += 1;
                continue;
            }
            if self.is_free(bit) {
                // The outer SA had no say in it, and the inner one is AH.
                assert_eq!(verdict, In::Drop(DropReason::Authentication), "{context}");
                receiver = (self.receiver)();
                continue;
            }
            assert!(
                self.is_untouched(&receiver),
                "{context}: bit {bit}: {verdict:?}"
            );
            if let Some(reasons) = self.reasons(bit) {
                let one = matches!(verdict, In::Drop(reason) if reasons.contains(&reason));
                assert!(one, "{context}: bit {bit}: {verdict:?}");
            }
        }
        let whole = meet(&mut receiver, self.sealed);
        assert_eq!(whole, (In::Opened, self.opened.clone()), "{context}");
        (flips, opened)
    }

    /// Cuts at each length, as a frame that ends early and as a packet that says so itself.
    fn cut(&self, context: &str) -> u32 {
        let (mut receiver, mut cuts) = ((self.receiver)(), 0);
        for length in 0..self.sealed.len() {
            let early = meet(&mut receiver, &self.sealed[..length]).0;
            assert_eq!(early, In::Drop(DropReason::Malformed), "{context} {length}");
            cuts += 1;
            if length < self.header() {
                continue;
            }
            let (verdict, _) = meet(&mut receiver, &self.honest(length));
            cuts += 1;
            assert!(
                self.is_untouched(&receiver),
                "{context} {length}: {verdict:?}"
            );
            let Some(left) = length.checked_sub(self.protected()) else {
                // Without ports, or no whole UDP header: clear, and all of it is to be protected.
                let expected = if length < self.header() + 4 {
                    DropReason::Malformed
                } else {
                    DropReason::PlaintextRequiredProtection
                };
                assert_eq!(verdict, In::Drop(expected), "{context} {length}");
                continue;
            };
            if self.udp && left < 2 {
                // None or one byte is a keepalive's place: the machine may look at it.
                assert_eq!(verdict, In::Host, "{context} {length}");
                continue;
            }
            let expected = if self.is_too_short(left) {
                DropReason::Malformed
            } else {
                DropReason::Authentication
            };
            assert_eq!(verdict, In::Drop(expected), "{context} {length}");
        }
        let whole = meet(&mut receiver, self.sealed).0;
        assert_eq!(whole, In::Opened, "{context}");
        cuts
    }

    /// Whether what is left of ESP or AH is told apart before a key is used.
    fn is_too_short(&self, left: usize) -> bool {
        match self.outermost {
            Protocol::Esp => {
                let text = left.checked_sub(self.around);
                text.is_none_or(|text| text < 2 || !text.is_multiple_of(self.block))
            }
            Protocol::Ah => {
                let words = usize::from(self.sealed[self.protected() + 1]);
                left < (words + 2) * 4
            }
        }
    }

    /// The first `length` bytes with lengths that fit them.
    fn honest(&self, length: usize) -> Vec<u8> {
        let mut packet = self.sealed[..length].to_vec();
        let header = self.header();
        if self.six() {
            packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            resum(&mut packet[..20]);
        }
        if self.udp
            && let Some(field) = packet.get_mut(header + 4..header + 6)
        {
            field.copy_from_slice(&((length - header) as u16).to_be_bytes());
        }
        packet
    }
}

//= test T28
//= test T31
//= test T34
#[test]
fn transport_mode_alone_and_in_udp() {
    let (mut flips, mut opened, mut cuts) = (0, 0, 0);
    for suite in suites() {
        for [source, destination] in [[A, B], [A6, B6]] {
            for (udp, esn) in [(false, false), (false, true), (true, false), (true, true)] {
                let pair = || {
                    pair_of(source, destination, |sa| {
                        let blank = crate::gateway::sa(sa.direction, sa.spi, source, destination);
                        *sa = with_suite(blank, suite);
                        sa.mode = Mode::Transport;
                        sa.esn = esn;
                        sa.udp_encapsulation = udp.then_some(UdpEncapsulation {
                            source_port: 4500,
                            destination_port: 4500,
                        });
                    })
                };
                // A protocol without checksums: nothing in it follows from the header.
                let front = if source == A { 20 } else { 40 };
                let payload: Vec<u8> = (0..41).collect();
                let inner = between(source, destination, front).with(253, &payload);
                let mut lowered = inner.clone();
                lowered[if front == 20 { 8 } else { 7 }] -= 1;
                if front == 20 {
                    resum(&mut lowered[..20]);
                }
                let case = Case {
                    sealed: &pair().0.seal(&inner),
                    opened: lowered,
                    receiver: &|| pair().1,
                    sas: &["1001-In"],
                    outermost: Protocol::Esp,
                    udp,
                    around: 8 + suite.iv_length() + suite.icv_length(),
                    block: suite.alignment(),
                };
                let context = format!("{suite:?} {source} udp {udp} esn {esn}");
                let (all, through) = case.flip(&context);
                (flips, opened) = (flips + all, opened + through);
                cuts += case.cut(&context);
            }
        }
    }
    assert!(flips > 180_000 && opened > 20_000, "{flips} {opened}");
    assert!(cuts > 30_000, "{cuts}");
}

//= test T28
//= test T31
//= test T48
//= test T50
#[test]
fn bundles_of_every_kind() {
    let (mut flips, mut cuts) = (0, 0);
    let kinds = [ESP_TUNNEL, ESP_TRANSPORT, AH_TUNNEL, AH_TRANSPORT];
    for (inner, outer) in kinds.into_iter().flat_map(|i| kinds.map(|o| (i, o))) {
        for six in [false, true] {
            let pair = || bundles::gateways(inner, outer, six, &bundles::BOTH);
            let sent = match (inner.1, six) {
                (Mode::Tunnel, false) => v4(60),
                (Mode::Tunnel, true) => v6(80),
                (Mode::Transport, false) => between(A, B, 60),
                (Mode::Transport, true) => between(A6, B6, 80),
            };
            let case = Case {
                sealed: &pair().0.seal(&sent.bytes()),
                opened: Udp::lowered(&sent),
                receiver: &|| pair().1,
                sas: &bundles::BOTH,
                outermost: outer.0,
                udp: false,
                // AES-GCM.
                around: 8 + 8 + 16,
                block: 4,
            };
            let context = format!("{inner:?} in {outer:?} six {six}");
            flips += case.flip(&context).0;
            cuts += case.cut(&context);
        }
    }
    assert!(flips > 30_000 && cuts > 8_000, "{flips} {cuts}");
}
