use proptest::prelude::*;

use super::*;

fn covered(headers: &[u8], end: End) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    cover(headers, end, &mut |piece| bytes.extend_from_slice(piece))?;
    Some(bytes)
}

fn arrived(headers: &[u8]) -> Vec<u8> {
    covered(headers, End::Receiver).unwrap()
}

/// An IPv4 header with these options, padded with ends of list.
fn v4(options: &[u8]) -> Vec<u8> {
    let fields = ipv4::Fields {
        traffic_class: 0xb9,
        total_length: 100,
        identification: 0x1234,
        flags_and_offset: ipv4::DONT_FRAGMENT,
        hop_limit: 64,
        protocol: 51,
        source: 0xc000_0201,
        destination: 0xc000_0202,
    };
    let mut header = fields.to_bytes().to_vec();
    header.extend_from_slice(options);
    header.resize(header.len().next_multiple_of(4), 0);
    header[0] = 0x40 | u8::try_from(header.len() / 4).unwrap();
    header
}

/// An IPv6 header with these extension headers behind it, AH behind them.
fn v6(extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut behind = Vec::new();
    for (at, (_, header)) in extensions.iter().enumerate() {
        let next = extensions.get(at + 1).map_or(51, |(kind, _)| *kind);
        behind.push(next);
        behind.extend_from_slice(&header[1..]);
    }
    let fields = ipv6::Fields {
        traffic_class: 0xb9,
        flow_label: 0x12345,
        payload_length: u16::try_from(behind.len() + 60).unwrap(),
        next_header: extensions.first().map_or(51, |(kind, _)| *kind),
        hop_limit: 64,
        source: 0x2001_0db8_u128 << 96 | 1,
        destination: 0x2001_0db8_u128 << 96 | 2,
    };
    [&fields.to_bytes()[..], &behind].concat()
}

fn options(body: &[u8]) -> Vec<u8> {
    let mut header = vec![0, 0];
    header.extend_from_slice(body);
    assert_eq!(header.len() % 8, 0);
    header[1] = u8::try_from(header.len() / 8 - 1).unwrap();
    header
}

/// Flips every bit of `headers` and tells for which the cover stays as it was.
fn free_bits(headers: &[u8]) -> Vec<usize> {
    let before = arrived(headers);
    let bits = 0..headers.len() * 8;
    bits.filter(|bit| {
        let mut changed = headers.to_vec();
        changed[bit / 8] ^= 0x80 >> (bit % 8);
        covered(&changed, End::Receiver).as_ref() == Some(&before)
    })
    .collect()
}

fn bits_of(bytes: &[usize]) -> Vec<usize> {
    let bits = |byte: &usize| byte * 8..byte * 8 + 8;
    bytes.iter().flat_map(bits).collect()
}

//= test T41
//= test T42
#[test]
fn of_ipv4_these_bits_may_change() {
    // DSCP and ECN; flags and offset, TTL; checksum.
    let free = bits_of(&[1, 6, 7, 8, 10, 11]);
    assert_eq!(free_bits(&v4(&[])), free);
    assert_eq!(arrived(&v4(&[]))[..4], [0x45, 0, 0, 100]);
}

//= test T43
//= test T90
#[test]
fn an_ipv4_option_counts_whole_or_not_at_all() {
    let immutable = [0x82, 0x85, 0x86, 0x94, 0x95];
    for kind in 2..=255 {
        let header = v4(&[kind, 4, 0xaa, 0xbb]);
        let tail = match immutable.contains(&kind) {
            true => [kind, 4, 0xaa, 0xbb],
            false => [0; 4],
        };
        assert_eq!(arrived(&header)[20..], tail, "option {kind:#x}");
    }
    // A no-operation and the end of the list stay, and so does what stands behind the end.
    assert_eq!(arrived(&v4(&[1, 7, 3, 0xaa]))[20..], [1, 0, 0, 0]);
    assert_eq!(arrived(&v4(&[0, 7, 3, 0xaa]))[20..], [0, 7, 3, 0xaa]);
    assert_eq!(
        arrived(&v4(&[0x94, 4, 0, 0, 0x44, 4, 5, 0]))[20..],
        [0x94, 4, 0, 0, 0, 0, 0, 0]
    );
    // Lengths that lie.
    for damaged in [
        &[7, 0, 0, 0][..],
        &[7, 1, 0, 0],
        &[7, 5, 0, 0],
        &[1, 1, 1, 7],
    ] {
        assert_eq!(covered(&v4(damaged), End::Receiver), None, "{damaged:?}");
    }
}

//= test T91
#[test]
fn a_source_route_counts_with_its_end() {
    for kind in SOURCE_ROUTES {
        let route = [kind, 11, 4, 10, 0, 0, 1, 10, 0, 0, 2];
        let ahead = v4(&route);
        let mut there = ahead.clone();
        there[16..20].copy_from_slice(&[10, 0, 0, 2]);
        // What the routers wrote into the option on the way.
        there[20..31].copy_from_slice(&[kind, 11, 12, 192, 0, 2, 9, 192, 0, 2, 10]);
        assert_eq!(covered(&ahead, End::Sender), Some(arrived(&there)));
        assert_ne!(arrived(&ahead), arrived(&there));
        // Used up: the destination is the end already.
        assert_eq!(covered(&there, End::Sender), Some(arrived(&there)));
    }
    // A recorded route does not change where the packet goes.
    let recorded = v4(&[7, 7, 4, 10, 0, 0, 1]);
    assert_eq!(covered(&recorded, End::Sender), Some(arrived(&recorded)));
}

//= test T44
#[test]
fn of_ipv6_these_bits_may_change() {
    // Traffic class and flow label; hop limit.
    let free: Vec<usize> = (4..32).chain(56..64).collect();
    assert_eq!(free_bits(&v6(&[])), free);
    assert_eq!(arrived(&v6(&[]))[..8], [0x60, 0, 0, 0, 0, 60, 51, 0]);
}

//= test T45
#[test]
fn of_an_ipv6_option_that_may_change_the_data_is_zero() {
    for kind in [HOP_BY_HOP, DESTINATION_OPTIONS] {
        // One option that stays, padding, one that may change.
        let body = [
            0x05, 2, 0xaa, 0xbb, 0, 1, 1, 0, 0x3e, 4, 0xcc, 0xdd, 0xee, 0xff,
        ];
        let headers = v6(&[(kind, options(&body))]);
        let free = free_bits(&headers);
        let expected: Vec<usize> = (4..32)
            .chain(56..64)
            .chain(bits_of(&[52, 53, 54, 55]))
            .collect();
        assert_eq!(free, expected);
        let mut masked = body;
        masked[10..].fill(0);
        assert_eq!(arrived(&headers)[42..], masked);
    }
}

#[test]
fn an_option_beyond_its_header_is_refused() {
    for body in [
        [0x05, 5, 0, 0, 0, 0],
        [0x05, 255, 0, 0, 0, 0],
        [1, 3, 0, 0, 0, 5],
    ] {
        let headers = v6(&[(HOP_BY_HOP, options(&body))]);
        assert_eq!(covered(&headers, End::Receiver), None, "{body:?}");
    }
}

fn routing(left: u8, addresses: &[u128]) -> Vec<u8> {
    let mut header = vec![0, u8::try_from(addresses.len() * 2).unwrap(), 0, left];
    header.extend([0, 0, 0, 0]);
    header.extend(addresses.iter().flat_map(|address| address.to_be_bytes()));
    header
}

/// One node's part (RFC 2460 section 4.4): false when the packet is where it goes.
fn visit(headers: &mut [u8], at: usize) -> bool {
    let (count, left) = (usize::from(headers[at + 1]) / 2, headers[at + 3]);
    if left == 0 {
        return false;
    }
    headers[at + 3] -= 1;
    let next = at + 8 + (count - usize::from(left)) * 16;
    for byte in 0..16 {
        headers.swap(24 + byte, next + byte);
    }
    true
}

//= test T45
#[test]
fn a_routing_header_counts_as_it_arrives() {
    let addresses = [0xa1, 0xa2, 0xa3];
    for left in 0..=3 {
        let hop = options(&[1, 4, 0, 0, 0, 0]);
        let sent = v6(&[
            (HOP_BY_HOP, hop),
            (ROUTING, routing(left, &addresses)),
            (DESTINATION_OPTIONS, options(&[1, 4, 0, 0, 0, 0])),
        ]);
        let mut there = sent.clone();
        while visit(&mut there, 48) {}
        assert_eq!(covered(&sent, End::Sender), Some(arrived(&there)), "{left}");
        assert_eq!(arrived(&there), covered(&there, End::Sender).unwrap());
        if left > 0 {
            assert_ne!(arrived(&sent), arrived(&there));
            assert_eq!(there[24..40], 0xa3_u128.to_be_bytes());
        }
    }
    let beyond = v6(&[(ROUTING, routing(4, &addresses))]);
    assert_eq!(covered(&beyond, End::Sender), None);
    // Another type of routing header counts as it is.
    let mut other = routing(1, &addresses);
    other[2] = 4;
    let other = v6(&[(ROUTING, other)]);
    assert_eq!(covered(&other, End::Sender), Some(arrived(&other)));
}

//= test T93
#[test]
fn a_fragment_header_left_over_does_not_count() {
    let fragment = vec![0, 0, 0, 0, 1, 2, 3, 4];
    let hop = || (HOP_BY_HOP, options(&[0x05, 2, 0xaa, 0xbb, 0, 0]));
    let behind = || (DESTINATION_OPTIONS, options(&[1, 4, 0, 0, 0, 0]));
    for (with, without) in [
        (vec![(FRAGMENT, fragment.clone())], vec![]),
        (vec![hop(), (FRAGMENT, fragment.clone())], vec![hop()]),
        (
            vec![hop(), (FRAGMENT, fragment), behind()],
            vec![hop(), behind()],
        ),
    ] {
        let with = v6(&with);
        let without = v6(&without);
        assert_eq!(arrived(&with), arrived(&without));
    }
}

proptest! {
    #[test]
    fn no_headers_panic(
        mut headers in prop::collection::vec(any::<u8>(), 0..200), six: bool, sender: bool,
    ) {
        if let Some(first) = headers.first_mut() && six {
            *first = 0x60;
        }
        if let Some(next) = headers.get_mut(6) && six {
            *next = [0, 43, 44, 60][usize::from(*next) % 4];
        }
        let end = if sender { End::Sender } else { End::Receiver };
        if let Some(bytes) = covered(&headers, end) {
            prop_assert!(bytes.len() <= headers.len());
        }
    }

    /// Options of every kind in any order: the cover is as long, and the same however often taken.
    #[test]
    fn the_cover_of_options_is_as_long_as_they_are(
        all in prop::collection::vec((2_u8..=255, 0_usize..6), 0..5),
    ) {
        let mut body = Vec::new();
        for (kind, length) in all {
            body.push(kind);
            body.push(u8::try_from(length).unwrap());
            body.extend(vec![0xa5; length]);
        }
        let pad = (8 - (body.len() + 2) % 8) % 8;
        body.extend(vec![0; pad]);
        let headers = v6(&[(HOP_BY_HOP, options(&body))]);
        prop_assert_eq!(arrived(&headers).len(), headers.len());
    }
}
