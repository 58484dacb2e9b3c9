//! What arrives from the unprotected side.

use xipsec_abi::Outcome;

use super::frames::*;
use super::world::Case;

const PEER: (&str, &str) = ("192.0.2.2", "192.0.2.1");
const STRANGER: (&str, &str) = ("203.0.113.5", "192.0.2.1");
const PEER6: (&str, &str) = ("2001:db8::2", "2001:db8::1");
/// The endpoint that the kernel serves too.
const LISTED: (&str, &str) = ("192.0.2.2", "192.0.2.9");
/// ESP for somebody else.
const TRANSIT: (&str, &str) = ("203.0.113.5", "203.0.113.99");

/// Rules 3 to 8.
pub(super) fn cases() -> Vec<Case> {
    [
        bare(),
        listed(),
        encapsulated(),
        not_encapsulated(),
        local(),
        by_policy(),
    ]
    .concat()
}

/// Rule 3: ESP and AH at endpoints that are all ours.
fn bare() -> Vec<Case> {
    let socket = |name, frame| Case::pass(name, frame, Outcome::SocketIpsec);
    let options = ethernet(PORT, 0x0800, &ipv4_with(PEER, ESP, 0, &[7; 40], &esp(1)));
    let behind = |payload: &[u8]| v6(PEER6, HOP_BY_HOP, &extension(OPTIONS, 1, payload));
    let eight = (1..8).fold(extension(ESP, 0, &esp(1)), |inner, _| {
        extension(OPTIONS, 0, &inner)
    });
    let later6 = fragment(ESP, 100, false, &[0; 40]);
    let mut with_padding = v4(PEER, ESP, &esp(1));
    with_padding.extend([0; 20]);
    vec![
        socket("ESP of an SA", v4(PEER, ESP, &esp(0x1001))),
        socket(
            "ESP of no SA: the worker says no_sa",
            v4(STRANGER, ESP, &esp(0xdead)),
        ),
        socket("AH", v4(PEER, AH, &ah(0x1002))),
        socket("ESP behind IPv4 options", options),
        socket("ESP without a header", v4(PEER, ESP, &[])),
        socket("ESP and Ethernet padding", with_padding),
        socket("first fragment of ESP", v4_piece(PEER, ESP, FIRST, &esp(1))),
        socket(
            "later fragment of ESP",
            v4_piece(PEER, ESP, LATER, &[0; 40]),
        ),
        socket("last fragment of AH", v4_piece(PEER, AH, 3, &[0; 40])),
        socket("ESP with DF", v4_piece(PEER, ESP, 0x4000, &esp(1))),
        socket(
            "ESP to an SA's address elsewhere",
            v4(("203.0.113.5", "198.51.100.7"), ESP, &esp(1)),
        ),
        socket("ESP in IPv6", v6(PEER6, ESP, &esp(1))),
        socket("AH in IPv6", v6(PEER6, AH, &ah(1))),
        socket(
            "ESP behind extension headers",
            behind(&extension(ESP, 2, &esp(1))),
        ),
        socket(
            "ESP behind eight extension headers",
            v6(PEER6, OPTIONS, &eight),
        ),
        socket(
            "first IPv6 fragment",
            v6(PEER6, FRAGMENT, &fragment(ESP, 0, true, &esp(1))),
        ),
        socket("later IPv6 fragment", v6(PEER6, FRAGMENT, &later6)),
        socket(
            "atomic fragment",
            v6(PEER6, FRAGMENT, &fragment(ESP, 0, false, &esp(1))),
        ),
        Case::pass(
            "ESP in transit",
            v4(TRANSIT, ESP, &esp(1)),
            Outcome::PassUnmatched,
        ),
        Case::pass(
            "ESP to an IPv4-mapped endpoint",
            v6(("2001:db8::2", "::ffff:192.0.2.1"), ESP, &esp(1)),
            Outcome::PassUnmatched,
        ),
    ]
}

/// Rules 3 and 4 at an endpoint that the kernel serves too.
fn listed() -> Vec<Case> {
    let pass = |name, frame| Case::pass(name, frame, Outcome::PassListed);
    let mut padded = v4(LISTED, ESP, &[]);
    padded.extend(esp(0x2001));
    let in_udp = |spi| v4(LISTED, UDP, &udp(4500, 4500, &esp(spi)));
    vec![
        Case::pass(
            "listed ESP",
            v4(LISTED, ESP, &esp(0x2001)),
            Outcome::SocketIpsec,
        ),
        Case::pass(
            "listed AH",
            v4(LISTED, AH, &ah(0x2002)),
            Outcome::SocketIpsec,
        ),
        Case::pass(
            "listed ESP in UDP",
            in_udp(0x2001),
            Outcome::SocketEncapsulated,
        ),
        Case::pass(
            "first fragment of listed ESP",
            v4_piece(LISTED, ESP, FIRST, &esp(0x2001)),
            Outcome::SocketIpsec,
        ),
        pass("ESP that is not listed", v4(LISTED, ESP, &esp(0x2002))),
        pass("AH with the SPI of ESP", v4(LISTED, AH, &ah(0x2001))),
        pass("ESP in UDP that is not listed", in_udp(0x2003)),
        pass(
            "later fragment: no SPI to know it by",
            v4_piece(LISTED, ESP, LATER, &esp(0x2001)),
        ),
        pass("ESP too short for its SPI", v4(LISTED, ESP, &[0, 0, 0x20])),
        pass("Ethernet padding that looks like its SPI", padded),
        pass("AH too short for its SPI", v4(LISTED, AH, &ah(0x2002)[..7])),
    ]
}

/// UDP to the encapsulation port.
fn to(addresses: (&str, &str), payload: &[u8]) -> Vec<u8> {
    v4(addresses, UDP, &udp(40_000, 4500, payload))
}

/// Rule 4, what is taken.
fn encapsulated() -> Vec<Case> {
    let socket = |name, frame| Case::pass(name, frame, Outcome::SocketEncapsulated);
    let saying = |length| v4(STRANGER, UDP, &udp_saying(4500, 4500, length, &esp(1)));
    let behind_options = ipv4_with(STRANGER, UDP, 0, &[1; 8], &udp(4500, 4500, &esp(1)));
    vec![
        socket("ESP in UDP", to(STRANGER, &esp(0x1001))),
        socket(
            "ESP in UDP at a port of its own",
            v4(PEER, UDP, &udp(5, 10_000, &esp(1))),
        ),
        socket(
            "ESP in UDP behind options",
            ethernet(PORT, 0x0800, &behind_options),
        ),
        socket(
            "ESP in UDP over IPv6",
            v6(PEER6, UDP, &udp(4500, 4500, &esp(1))),
        ),
        socket("a peer's keepalive", to(PEER, &[0xff])),
        socket(
            "2 bytes: malformed, the worker's",
            to(STRANGER, &[0xff, 0xff]),
        ),
        socket("7 bytes: malformed, the worker's", to(STRANGER, &[1; 7])),
        socket("a UDP length beyond the packet", saying(500)),
        socket("a UDP length below its header", saying(7)),
        socket(
            "2 bytes in a longer packet: what follows is no marker",
            v4(STRANGER, UDP, &udp_saying(4500, 4500, 10, &[0; 20])),
        ),
        socket("a UDP length of 0", saying(0)),
    ]
}

/// Rule 4, what stays with the kernel.
fn not_encapsulated() -> Vec<Case> {
    let marker = |name, frame| Case::pass(name, frame, Outcome::PassMarker);
    let piece = |name, frame| Case::pass(name, frame, Outcome::PassUdpFragment);
    let ike = [&[0; 4][..], &[1; 28]].concat();
    vec![
        marker("IKE at the encapsulation port", to(STRANGER, &ike)),
        marker(
            "IKE at another encapsulation port",
            v4(PEER, UDP, &udp(5, 10_000, &ike)),
        ),
        marker("the marker alone", to(PEER, &[0; 4])),
        marker("IKE over IPv6", v6(PEER6, UDP, &udp(4500, 4500, &ike))),
        marker(
            "IKE at a listed endpoint",
            v4(LISTED, UDP, &udp(4500, 4500, &ike)),
        ),
        marker("a stranger's keepalive", to(STRANGER, &[0xff])),
        marker("a peer's one other byte", to(PEER, &[0xfe])),
        marker("nothing", to(PEER, &[])),
        piece(
            "first fragment of UDP",
            v4_piece(PEER, UDP, FIRST, &udp(4500, 4500, &esp(1))),
        ),
        piece(
            "later fragment of UDP",
            v4_piece(PEER, UDP, LATER, &[0; 64]),
        ),
        piece(
            "fragment of IKE",
            v4_piece(PEER, UDP, FIRST, &udp(500, 500, &ike)),
        ),
        piece(
            "IPv6 fragment of UDP",
            v6(PEER6, FRAGMENT, &fragment(UDP, 9, true, &[0; 64])),
        ),
        piece(
            "fragment to a listed endpoint",
            v4_piece(LISTED, UDP, LATER, &[0; 64]),
        ),
        Case::pass(
            "4500 where nothing is encapsulated",
            v4(("203.0.113.5", "10.1.0.1"), UDP, &udp(4500, 4500, &esp(1))),
            Outcome::PassIke,
        ),
        Case::pass(
            "4500 in transit",
            v4(TRANSIT, UDP, &udp(4500, 4500, &esp(1))),
            Outcome::PassUnmatched,
        ),
        Case::pass(
            "a UDP header cut short",
            v4(STRANGER, UDP, &udp(4500, 4500, &[])[..7]),
            Outcome::PassLocal,
        ),
        Case::pass(
            "DNS to the machine",
            v4(STRANGER, UDP, &udp(53, 40_000, &[0; 40])),
            Outcome::PassLocal,
        ),
    ]
}

/// Rule 6.
fn local() -> Vec<Case> {
    vec![
        Case::pass(
            "ssh to the machine",
            v4(STRANGER, TCP, &tcp()),
            Outcome::PassLocal,
        ),
        Case::pass(
            "ping to the machine",
            v4(PEER, 1, &[8; 64]),
            Outcome::PassLocal,
        ),
        Case::pass(
            "IPv6 to the machine",
            v6(PEER6, TCP, &tcp()),
            Outcome::PassLocal,
        ),
        Case::drop(
            "to the machine, but policy protects it",
            v4(("10.2.2.3", "192.0.2.1"), TCP, &tcp()),
            Outcome::SocketLocal,
        ),
        Case::drop(
            "to its protected address, and policy discards it",
            v4(("10.66.0.1", "10.1.0.1"), TCP, &tcp()),
            Outcome::SocketLocal,
        ),
        Case::drop(
            "the same from a port that IKE has",
            v4(("10.2.2.3", "192.0.2.1"), UDP, &udp(500, 53, &[1; 28])),
            Outcome::SocketLocal,
        ),
        Case::drop(
            "what a DHCP relay sends to it",
            v4(("10.2.2.3", "192.0.2.1"), UDP, &udp(67, 67, &[0; 240])),
            Outcome::SocketLocal,
        ),
        Case::pass(
            "to the machine, policy bypasses",
            v4(("10.9.2.3", "10.1.0.1"), TCP, &tcp()),
            Outcome::PassLocal,
        ),
        Case::pass(
            "the same remote, another address of the machine",
            v4(("10.2.2.3", "192.0.2.9"), TCP, &tcp()),
            Outcome::PassLocal,
        ),
    ]
}

/// Rules 7 and 8.
fn by_policy() -> Vec<Case> {
    let policy = Outcome::SocketPolicy;
    let clear6 = ("2001:db8:2::5", "2001:db8:1::5");
    let to = |source, destination| v4((source, destination), TCP, &tcp());
    let unmatched = |name, frame| Case::pass(name, frame, Outcome::PassUnmatched);
    vec![
        Case::drop(
            "in the clear although protected",
            to("10.2.2.3", "10.1.2.3"),
            policy,
        ),
        Case::drop("the same over IPv6", v6(clear6, TCP, &tcp()), policy),
        Case::drop("discarded by policy", to("10.66.2.3", "10.1.2.3"), policy),
        Case::pass("bypassed by policy", to("10.9.2.3", "10.1.2.3"), policy),
        Case::drop(
            "a fragment of it",
            v4_piece(("10.2.2.3", "10.1.2.3"), UDP, LATER, &[0; 64]),
            policy,
        ),
        Case::drop(
            "a DHCP lease over there",
            v4(("10.2.2.3", "10.1.2.3"), UDP, &udp(67, 68, &[0; 240])),
            policy,
        ),
        Case::drop(
            "ESP inside it",
            v4(("10.2.2.3", "10.1.2.3"), ESP, &esp(1)),
            policy,
        ),
        unmatched("the way out, not the way in", to("10.1.2.3", "10.2.2.3")),
        unmatched("a source of no policy", to("10.8.0.1", "10.1.2.3")),
        unmatched("a destination of no policy", to("10.2.2.3", "10.8.0.1")),
        unmatched("only outbound policies name it", to("10.4.0.1", "10.3.0.1")),
        unmatched("transit", to("203.0.113.1", "203.0.113.99")),
    ]
}

/// With `unmatched = "discard"` and `reassemble_udp`.
pub(super) fn with_discard_and_reassembly() -> Vec<Case> {
    let pieces = Outcome::SocketUdpFragment;
    vec![
        Case::drop("transit", v4(TRANSIT, TCP, &tcp()), Outcome::DropUnmatched),
        Case::drop(
            "ESP in transit",
            v4(TRANSIT, ESP, &esp(1)),
            Outcome::DropUnmatched,
        ),
        Case::pass(
            "ssh to the machine",
            v4(STRANGER, TCP, &tcp()),
            Outcome::PassLocal,
        ),
        Case::pass(
            "ARP",
            ethernet([0xff; 6], 0x0806, &[0; 28]),
            Outcome::PassNotIp,
        ),
        Case::pass(
            "first piece",
            v4_piece(PEER, UDP, FIRST, &udp(4500, 4500, &esp(1))),
            pieces,
        ),
        Case::pass("later piece", v4_piece(PEER, UDP, LATER, &[0; 64]), pieces),
        Case::pass(
            "a piece for the endpoint that the kernel serves too",
            v4_piece(LISTED, UDP, LATER, &[0; 64]),
            Outcome::PassUdpFragment,
        ),
    ]
}
