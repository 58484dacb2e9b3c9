//! What arrives from the protected side.

use xipsec_abi::Outcome;

use super::frames::*;
use super::world::Case;

/// What policy protects.
pub(super) fn to_the_peer() -> Case {
    Case::drop(
        "A to B",
        v4(("10.1.2.3", "10.2.2.3"), TCP, &tcp()),
        Outcome::SocketPolicy,
    )
}

/// Rules 6 to 8; 3 and 4 are not for this side.
pub(super) fn cases() -> Vec<Case> {
    [taken(), left()].concat()
}

fn to(source: &str, destination: &str) -> Vec<u8> {
    v4((source, destination), TCP, &tcp())
}

const CLEAR6: (&str, &str) = ("2001:db8:1::5", "2001:db8:2::5");

/// Policies name both addresses.
fn taken() -> Vec<Case> {
    let policy = |name, frame| Case::drop(name, frame, Outcome::SocketPolicy);
    let options = ipv4_with(("10.1.2.3", "10.2.2.3"), TCP, 0, &[1; 12], &tcp());
    let solicitation = [&[135, 0, 0, 0][..], &[0; 20]].concat();
    vec![
        to_the_peer(),
        policy("C to D", to("10.3.2.3", "10.4.2.3")),
        policy("the narrow one of C, to E", to("10.3.1.1", "10.5.0.1")),
        policy(
            "the narrow one of C, to D: the wide policy's too",
            to("10.3.1.1", "10.4.0.1"),
        ),
        policy("discarded by policy", to("10.1.2.3", "10.66.0.1")),
        policy("IPv6", v6(CLEAR6, TCP, &tcp())),
        policy(
            "IPv6 behind extension headers",
            v6(CLEAR6, OPTIONS, &extension(TCP, 3, &tcp())),
        ),
        policy("behind IPv4 options", ethernet(PORT, 0x0800, &options)),
        policy(
            "a later fragment",
            v4_piece(("10.1.2.3", "10.2.2.3"), UDP, LATER, &[0; 64]),
        ),
        policy(
            "a later IPv6 fragment",
            v6(CLEAR6, FRAGMENT, &fragment(UDP, 5, true, &[0; 64])),
        ),
        policy(
            "ESP is a packet like any other",
            v4(("10.1.2.3", "10.2.2.3"), ESP, &esp(1)),
        ),
        policy(
            "DHCP clients do not talk to one another",
            v4(("10.1.2.3", "10.2.2.3"), UDP, &udp(68, 68, &[0; 240])),
        ),
        policy(
            "a DHCP renewal over there",
            v4(("10.1.2.3", "10.2.2.3"), UDP, &udp(68, 67, &[0; 240])),
        ),
        policy(
            "what a DHCP relay sends there",
            v4(("10.1.2.3", "10.2.2.3"), UDP, &udp(67, 67, &[0; 240])),
        ),
        policy(
            "what a DHCPv6 relay sends there",
            v6(CLEAR6, UDP, &udp(547, 547, &[0; 40])),
        ),
        policy(
            "what the machine itself sends there as a relay",
            v4(("10.1.0.1", "10.2.2.3"), UDP, &udp(67, 67, &[0; 240])),
        ),
        policy(
            "IKE of others",
            v4(("10.1.2.3", "10.2.2.3"), UDP, &udp(500, 500, &[1; 28])),
        ),
        policy("ND that was forwarded", v6(CLEAR6, 58, &solicitation)),
        policy("the first address of a prefix", to("10.1.0.0", "10.2.0.0")),
        policy(
            "the last address of a prefix",
            to("10.1.255.255", "10.2.255.255"),
        ),
        Case::pass(
            "bypassed by policy",
            to("10.1.2.3", "10.9.0.1"),
            Outcome::SocketPolicy,
        ),
    ]
}

/// For the machine, or in no policy.
fn left() -> Vec<Case> {
    let local = |name, frame| Case::pass(name, frame, Outcome::PassLocal);
    let unmatched = |name, frame| Case::pass(name, frame, Outcome::PassUnmatched);
    vec![
        local(
            "to the machine's protected address",
            to("10.1.2.3", "10.1.0.1"),
        ),
        local("to its unprotected address", to("10.1.2.3", "192.0.2.1")),
        local(
            "ESP for an endpoint",
            v4(("10.1.2.3", "192.0.2.1"), ESP, &esp(1)),
        ),
        local(
            "a UDP fragment",
            v4_piece(("10.1.2.3", "192.0.2.1"), UDP, LATER, &[0; 64]),
        ),
        local("although a policy names it", to("10.2.2.3", "192.0.2.1")),
        unmatched(
            "A to D: both named, in no policy together",
            to("10.1.2.3", "10.4.2.3"),
        ),
        unmatched("C to B", to("10.3.2.3", "10.2.2.3")),
        unmatched("C outside the narrow one, to E", to("10.3.2.3", "10.5.0.1")),
        unmatched("the way in, not the way out", to("10.2.2.3", "10.1.2.3")),
        unmatched("just before the prefix", to("10.0.255.255", "10.2.2.3")),
        unmatched("just behind the prefix", to("10.1.2.3", "10.3.0.0")),
        unmatched("to the internet", to("10.1.2.3", "203.0.113.1")),
        unmatched(
            "encapsulated ESP in transit",
            v4(("10.1.2.3", "203.0.113.1"), UDP, &udp(4500, 4500, &esp(1))),
        ),
        unmatched(
            "IPv6 of no policy",
            v6(("2001:db8:1::5", "2001:db8:3::5"), TCP, &tcp()),
        ),
        unmatched(
            "fec0::/10 was site-local, not link-local",
            v6(("2001:db8:1::5", "fec0::1"), TCP, &tcp()),
        ),
        unmatched(
            "IPv4-mapped addresses",
            v6(("::ffff:10.1.2.3", "::ffff:10.2.2.3"), TCP, &tcp()),
        ),
    ]
}
