//! Path MTU from ICMP errors about our own packets (RFC 4301 §8.2, RFC 1191, RFC 8201): what such
//! an error says, whether it is to be believed, and what then holds.
//!
//! Nobody authenticates these errors. One is believed only if it quotes what only somebody on the
//! path can know: the SA's addresses and SPI, and a number that the SA has just used. Even then it
//! may lower the estimate within limits and never raise it; time alone does that.

use std::sync::atomic::Ordering::Relaxed;

use crate::limits::{IPV4_MTU_MINIMUM, IPV6_MTU_MINIMUM};
use crate::packet::{Version, address_bits, parse_quote, protocol};
use crate::sa::association::{Direction, Protocol, Sa};
use crate::sa::database::Key;
use crate::wire::checksum::Sum;
use crate::wire::{esp, icmp, ipv4, udp};

/// How far behind the last number used a quoted one may lie. 2²⁰: what one core sends on an SA
/// while an error makes its way back over a path of half a second. Whoever is not on the path has
/// to hit the SPI (2⁻³²) and one of these numbers (2⁻¹² at best; fewer where an SA has sent
/// little), and wins no more than a smaller packet size within `path_mtu.minimum`.
pub const RECENT: u64 = 1 << 20;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// A packet was too long; the next link's MTU, 0 if the router did not say (RFC 1191 §5).
    TooBig(u32),
    /// Any other error, by type and code.
    Other(u8, u8),
}

/// An ICMP error about a packet that an SA of ours may have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it says.
    pub complaint: Complaint,
    /// The SA that the quoted packet names.
    pub key: Key,
    /// Its outer source, in [`crate::packet::Packet`]'s form.
    pub source: u128,
    /// The quoted packet is ESP in UDP.
    pub in_udp: bool,
    /// The number on the wire.
    pub sequence: u32,
    /// Length of the packet as its header stated it, bytes.
    pub length: u16,
}

impl Report {
    /// What an IPv4 ICMP packet, IP header and all, says. `None` if it is no error, its checksum is
    /// wrong, or it quotes too little of an ESP or AH packet.
    #[must_use]
    pub fn of_v4(ip: &[u8]) -> Option<Self> {
        let header = ipv4::Header::parse(ip)?;
        let end = usize::from(header.total_length()).min(ip.len());
        let message = ip.get(header.length()..end)?;
        if header.protocol() != protocol::ICMP || !Sum::ZERO.bytes(message).holds() {
            return None;
        }
        Self::new(Version::V4, message)
    }

    /// What an ICMPv6 message, whose checksum was verified, says; otherwise as [`Self::of_v4`].
    #[must_use]
    pub fn of_v6(message: &[u8]) -> Option<Self> {
        Self::new(Version::V6, message)
    }

    fn new(version: Version, message: &[u8]) -> Option<Self> {
        const FRAGMENTATION_NEEDED: u8 = 4;
        let (&[kind, code, _, _, rest @ ..], quote) =
            message.split_first_chunk::<{ icmp::LENGTH }>()?;
        let rest = u32::from_be_bytes(rest);
        let complaint = match (version, kind, code) {
            // The upper half was unused and is anything.
            (Version::V4, icmp::kind_v4::UNREACHABLE, FRAGMENTATION_NEEDED) => {
                Complaint::TooBig(rest & 0xffff)
            }
            (Version::V6, icmp::kind_v6::TOO_BIG, _) => Complaint::TooBig(rest),
            (Version::V4, kind, code) if icmp::is_error_v4(kind) => Complaint::Other(kind, code),
            (Version::V6, kind, code) if icmp::is_error_v6(kind) => Complaint::Other(kind, code),
            _ => return None,
        };
        let quoted = parse_quote(quote).filter(|quoted| quoted.version == version)?;
        let upper = quote.get(usize::from(quoted.upper_offset)..)?;
        let (protocol, in_udp, header) = match quoted.protocol {
            protocol::ESP => (Protocol::Esp, false, upper),
            protocol::UDP => (Protocol::Esp, true, upper.get(udp::LENGTH..)?),
            // SPI and number stand behind one word there (RFC 4302 §2).
            protocol::AH => (Protocol::Ah, false, upper.get(4..)?),
            _ => return None,
        };
        let header = esp::Header::parse(header)?;
        Some(Self {
            complaint,
            key: Key {
                destination: quoted.destination,
                spi: header.spi,
                protocol,
                version,
            },
            source: quoted.source,
            in_udp,
            sequence: header.sequence,
            length: quoted.length,
        })
    }

    /// ICMP type and code.
    #[must_use]
    pub const fn kind(&self) -> (u8, u8) {
        match (self.complaint, self.key.version) {
            (Complaint::TooBig(_), Version::V4) => (icmp::kind_v4::UNREACHABLE, 4),
            (Complaint::TooBig(_), Version::V6) => (icmp::kind_v6::TOO_BIG, 0),
            (Complaint::Other(kind, code), _) => (kind, code),
        }
    }

    /// True when the quoted packet is one that `sa` has just sent to where its peer is now.
    //= T65 (RFC 4301 section 8.2.1)
    #[must_use]
    pub fn is_about(&self, sa: &Sa) -> bool {
        let parameters = &sa.parameters;
        let sent = Key {
            destination: sa.peer_place().address,
            ..Key::of(sa)
        };
        parameters.direction == Direction::Out
            && sent == self.key
            && address_bits(parameters.source) == self.source
            && parameters.udp_encapsulation.is_some() == self.in_udp
            && self.is_recent(sa.published.sequence.load(Relaxed))
    }

    /// True when the quoted number is one that an SA has just used, which has come to `last`.
    #[must_use]
    pub fn is_recent(&self, last: u64) -> bool {
        let [.., a, b, c, d] = last.to_be_bytes();
        let behind = u32::from_be_bytes([a, b, c, d]).wrapping_sub(self.sequence);
        // Numbers begin with 1.
        u64::from(behind) < RECENT.min(last)
    }
}

/// The estimate, bytes of outer packet, that holds after a too-big about a packet of `length` bytes
/// told `told`, where `known` held before. `None` if the error is nonsense and changes nothing, not
/// even the estimate's age. `minimum`: the smallest that configuration believes.
//= T65 (RFC 4301 section 6.1.1)
//= T127 (RFC 1191 section 3, RFC 8201 section 4)
#[must_use]
pub fn lowered(version: Version, told: u32, length: u16, known: u16, minimum: u16) -> Option<u16> {
    let floor = match version {
        Version::V4 => IPV4_MTU_MINIMUM,
        Version::V6 => IPV6_MTU_MINIMUM,
    };
    let floor = u16::try_from(floor).unwrap_or(u16::MAX).max(minimum);
    let told = match (version, told) {
        (Version::V4, 0) => plateau(length),
        // A link that carries no 1280 bytes is no IPv6 link (RFC 8201 §4).
        (Version::V6, told) if told < 1280 => return None,
        // What would have passed was not too big.
        (_, told) => u16::try_from(told).ok().filter(|told| *told < length)?,
    };
    Some(known.min(told.max(floor)))
}

/// The next smaller size that links are known to have (RFC 1191 §7.1), for routers that do not say.
//= T129 (RFC 1191 sections 3, 5)
fn plateau(length: u16) -> u16 {
    const PLATEAUS: [u16; 10] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    let smaller = PLATEAUS.into_iter().find(|size| *size < length);
    smaller.unwrap_or(68)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6;

    const US: u32 = 0xc000_0201;
    const PEER: u32 = 0xc000_0202;

    fn outer(protocol: u8, length: u16) -> [u8; 20] {
        let fields = ipv4::Fields {
            traffic_class: 0,
            total_length: length,
            identification: 7,
            flags_and_offset: ipv4::DONT_FRAGMENT,
            hop_limit: 60,
            protocol,
            source: US,
            destination: PEER,
        };
        fields.to_bytes()
    }

    /// An ICMP error as the raw socket gives it.
    fn error(kind: u8, code: u8, rest: u32, quote: &[u8]) -> Vec<u8> {
        let header = icmp::Header { kind, code, rest };
        let message = [&header.to_bytes(Sum::ZERO, quote)[..], quote].concat();
        let fields = ipv4::Fields {
            traffic_class: 0,
            total_length: u16::try_from(20 + message.len()).unwrap(),
            identification: 0,
            flags_and_offset: 0,
            hop_limit: 60,
            protocol: protocol::ICMP,
            source: 0x0808_0808,
            destination: US,
        };
        [&fields.to_bytes()[..], &message].concat()
    }

    const SPI: [u8; 4] = [0, 0, 0x10, 1];

    fn esp(sequence: u32) -> Vec<u8> {
        let header = [&SPI[..], &sequence.to_be_bytes()].concat();
        [&outer(protocol::ESP, 1500)[..], &header].concat()
    }

    //= test T65 (RFC 4301 section 8.2.1)
    #[test]
    fn an_error_names_the_sa_and_the_number_that_it_is_about() {
        let report = Report::of_v4(&error(3, 4, 1400, &esp(9))).unwrap();
        assert_eq!(report.complaint, Complaint::TooBig(1400));
        assert_eq!((report.key.spi, report.sequence), (0x1001, 9));
        assert_eq!(report.key.destination, 0xffff_c000_0202);
        assert_eq!((report.source, report.length), (0xffff_c000_0201, 1500));
        assert!(!report.in_udp && report.key.protocol == Protocol::Esp);
        let unused = Report::of_v4(&error(3, 4, 0xabcd_0578, &esp(9))).unwrap();
        assert_eq!(unused.complaint, Complaint::TooBig(1400));
        let other = Report::of_v4(&error(3, 1, 0, &esp(9))).unwrap();
        assert_eq!(other.complaint, Complaint::Other(3, 1));

        let behind_udp = [
            &outer(protocol::UDP, 1500)[..],
            &[0; 8],
            &SPI,
            &[0, 0, 0, 3],
        ]
        .concat();
        let report = Report::of_v4(&error(3, 4, 1400, &behind_udp)).unwrap();
        assert!(report.in_udp && report.sequence == 3 && report.key.spi == 0x1001);
        let ah = [
            &outer(protocol::AH, 1500)[..],
            &[4, 4, 0, 0],
            &SPI,
            &[0, 0, 0, 4],
        ]
        .concat();
        let report = Report::of_v4(&error(3, 4, 1400, &ah)).unwrap();
        assert!(report.key.protocol == Protocol::Ah && report.sequence == 4);

        // No error, too little, something else, a wrong checksum.
        assert_eq!(Report::of_v4(&error(8, 0, 0, &esp(9))), None);
        assert_eq!(Report::of_v4(&error(5, 1, 0, &esp(9))), None);
        assert_eq!(Report::of_v4(&error(3, 4, 1400, &esp(9)[..27])), None);
        let tcp = [&outer(protocol::TCP, 1500)[..], &[0; 20]].concat();
        assert_eq!(Report::of_v4(&error(3, 4, 1400, &tcp)), None);
        let mut damaged = error(3, 4, 1400, &esp(9));
        damaged[27] ^= 1;
        assert_eq!(Report::of_v4(&damaged), None);
    }

    #[test]
    fn an_icmpv6_error_names_them_too() {
        let fields = ipv6::Fields {
            traffic_class: 0,
            flow_label: 5,
            payload_length: 1460,
            next_header: protocol::ESP,
            hop_limit: 9,
            source: 1 << 64,
            destination: 2 << 64,
        };
        let mut message = vec![2, 0, 0, 0, 0, 0, 5, 0x14];
        message.extend(fields.to_bytes());
        message.extend(SPI);
        message.extend([0, 0, 0, 9]);
        let report = Report::of_v6(&message).unwrap();
        assert_eq!(report.complaint, Complaint::TooBig(1300));
        assert_eq!((report.sequence, report.length), (9, 1500));
        assert_eq!(report.key.version, Version::V6);
        assert_eq!(Report::of_v6(&message[..55]), None);
        // The families must agree.
        let v4 = [&message[..8], &esp(9)].concat();
        assert_eq!(Report::of_v6(&v4), None);
    }

    //= test T65 (RFC 4301 section 8.2.1)
    #[test]
    fn only_what_was_just_sent_is_believed() {
        let about = |sequence| Report::of_v4(&error(3, 4, 1400, &esp(sequence))).unwrap();
        assert!(about(9).is_recent(9));
        assert!(about(1).is_recent(9));
        assert!(!about(0).is_recent(9));
        assert!(!about(10).is_recent(9));
        assert!(!about(0).is_recent(0));
        assert!(!about(9).is_recent(RECENT + 9));
        assert!(about(10).is_recent(RECENT + 9));
        // Across the end of the low half.
        assert!(about(u32::MAX).is_recent((1 << 32) + 5));
        assert!(!about(6).is_recent((1 << 32) + 5));
    }

    //= test T127 (RFC 1191 section 3, RFC 8201 section 4)
    //= test T65 (RFC 4301 section 6.1.1)
    #[test]
    fn an_estimate_falls_within_its_limits_and_never_rises() {
        let v4 = |told, known, minimum| lowered(Version::V4, told, 1500, known, minimum);
        let v6 = |told, known, minimum| lowered(Version::V6, told, 1500, known, minimum);
        assert_eq!(v4(1400, u16::MAX, 1280), Some(1400));
        assert_eq!(v4(1400, 1300, 1280), Some(1300));
        assert_eq!(v4(600, u16::MAX, 1280), Some(1280));
        assert_eq!(v4(600, u16::MAX, 68), Some(600));
        assert_eq!(v4(1, u16::MAX, 0), Some(68));
        assert_eq!(v6(1400, u16::MAX, 68), Some(1400));
        assert_eq!(v6(1279, u16::MAX, 68), None);
        assert_eq!(v6(1280, u16::MAX, 1350), Some(1350));
        assert_eq!(v6(0, u16::MAX, 68), None);
        for told in [1500, 1501, 65_535, 65_536, u32::MAX] {
            assert_eq!(v4(told, u16::MAX, 68), None);
            assert_eq!(v6(told, u16::MAX, 68), None);
        }
    }

    //= test T129 (RFC 1191 sections 3, 5)
    #[test]
    fn a_router_that_does_not_say_lowers_to_the_next_plateau() {
        let of = |length| lowered(Version::V4, 0, length, u16::MAX, 68);
        assert_eq!(of(1500), Some(1492));
        assert_eq!(of(1492), Some(1006));
        assert_eq!(of(65_535), Some(32_000));
        assert_eq!(of(60), Some(68));
        assert_eq!(lowered(Version::V4, 0, 1492, u16::MAX, 1280), Some(1280));
    }

    //= test T65 (RFC 4301 section 8.2.1)
    #[test]
    fn only_an_outbound_sas_own_addresses_and_form_are_its_own() {
        use std::sync::atomic::Ordering::Relaxed;

        use crate::sa::association::UdpEncapsulation;
        use crate::sa::sample::{parameters, sa};
        let report = Report::of_v4(&error(3, 4, 1400, &esp(9))).unwrap();
        let about = |change: &dyn Fn(&mut crate::sa::SaParameters)| {
            let mut wanted = parameters(Direction::Out, 0x1001, "192.0.2.2");
            wanted.source = "192.0.2.1".parse().unwrap();
            change(&mut wanted);
            let sa = sa(0, wanted);
            sa.published.sequence.store(9, Relaxed);
            report.is_about(&sa)
        };
        assert!(about(&|_| {}));
        assert!(!about(&|it| it.direction = Direction::In));
        assert!(!about(&|it| it.source = "192.0.2.7".parse().unwrap()));
        assert!(!about(&|it| {
            it.udp_encapsulation = Some(UdpEncapsulation {
                source_port: 4500,
                destination_port: 4500,
            });
        }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Report::of_v4(&bytes), Report::of_v6(&bytes));
        }

        #[test]
        fn no_quote_panics_and_no_estimate_rises(
            quote in prop::collection::vec(any::<u8>(), 0..80),
            start in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
            told: u32, length: u16, known: u16, minimum: u16,
        ) {
            let quote = [&[start][..], &quote].concat();
            let _ = Report::of_v4(&error(3, 4, told, &quote));
            let _ = Report::of_v6(&[&[2, 0, 0, 0, 0, 0, 5, 0][..], &quote].concat());
            for version in [Version::V4, Version::V6] {
                let new = lowered(version, told, length, known, minimum);
                prop_assert!(new.is_none_or(|new| new <= known));
            }
        }
    }
}
