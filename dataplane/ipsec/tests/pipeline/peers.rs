//! What tells peers and SAs apart, and what does not (RFC 4301 §4.1, §4.4.2; RFC 3948 §5).

use ipsec::policy::{Action, AddressSelector, PolicyParameters, Selector};
use ipsec::sa::association::Direction;
use ipsec::verdict::DropReason;

use crate::gateway::{A, B, Gateway, In, addresses, pair, policy, sa};
use crate::packets::{between, v4};

/// Another peer, behind the same gateway address as far as [`B`] can see.
const C: &str = "192.0.2.3";

//= test T96
#[test]
fn the_outer_dscp_chooses_nothing() {
    let (mut a, mut b) = pair(|_| {});
    for dscp in [0_u8, 10, 46, 63] {
        let mut sealed = a.seal(&v4(62).bytes());
        let old = sealed[1];
        sealed[1] = dscp << 2;
        let sum = u16::from_be_bytes([sealed[10], sealed[11]]);
        // RFC 1624: the header's checksum follows the byte that a router changed.
        let folded = u32::from(!sum) + u32::from(!u16::from(old)) + u32::from(dscp << 2);
        let folded = (folded & 0xffff) + (folded >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        sealed[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        assert_eq!(b.verdict(&sealed), In::Opened, "DSCP {dscp}");
    }
}

/// A policy for what `first` to `last` behind a peer sends.
fn from(name: &str, network: (&str, &str), sa: &str) -> PolicyParameters {
    PolicyParameters {
        selector: Selector {
            remote: addresses(network.0, network.1),
            local: AddressSelector::Any,
            ..Selector::any()
        },
        ..policy(name, Direction::In, Action::Protect, &[sa])
    }
}

fn sender(spi: u32, source: &str) -> Gateway {
    let out = sa(Direction::Out, spi, source, B);
    let to = policy("to", Direction::Out, Action::Protect, &[out.name.as_str()]);
    Gateway::new(vec![out], &[to], &[source])
}

//= test T137
//= test T139
#[test]
fn peers_with_one_inner_network_are_told_apart_by_their_sas() {
    // Both peers number their hosts from 10.1.0.0/24; policy gave it to the first one.
    let (mut a, mut c) = (sender(0x1001, A), sender(0x1002, C));
    let mut b = Gateway::new(
        vec![
            sa(Direction::In, 0x1001, A, B),
            sa(Direction::In, 0x1002, C, B),
        ],
        &[
            from("a", ("10.1.0.0", "10.1.0.255"), "1001-In"),
            from("c", ("10.1.0.0", "10.1.1.255"), "1002-In"),
        ],
        &[B],
    );
    let shared = between("10.1.0.7", "10.2.0.1", 62).bytes();
    let own = between("10.1.1.7", "10.2.0.1", 62).bytes();
    assert_eq!(b.verdict(&a.seal(&shared)), In::Opened);
    let end = In::Drop(DropReason::SelectorMismatch);
    assert_eq!(b.verdict(&c.seal(&shared)), end, "not the peer that has it");
    assert_eq!(b.verdict(&c.seal(&own)), In::Opened);
    assert_eq!([b.count(0), b.count(1)], [1, 1]);
}

//= test T139
#[test]
fn the_outer_source_tells_nothing() {
    // One public address, two peers behind it: the SPI alone finds the SA.
    let (mut a, mut c) = (sender(0x1001, A), sender(0x1002, A));
    let mut b = Gateway::new(
        vec![
            sa(Direction::In, 0x1001, A, B),
            sa(Direction::In, 0x1002, A, B),
        ],
        &[
            from("a", ("10.1.0.0", "10.1.0.255"), "1001-In"),
            from("c", ("10.1.1.0", "10.1.1.255"), "1002-In"),
        ],
        &[B],
    );
    for (sender, host) in [(&mut a, "10.1.0.7"), (&mut c, "10.1.1.7")] {
        let sealed = sender.seal(&between(host, "10.2.0.1", 62).bytes());
        assert_eq!(b.verdict(&sealed), In::Opened, "{host}");
    }
    assert_eq!([b.count(0), b.count(1)], [1, 1]);
}
