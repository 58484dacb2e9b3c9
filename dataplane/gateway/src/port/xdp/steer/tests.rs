//! The tries against brute force over the policies they were made from.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A policy that owns its selectors.
#[derive(Clone, Debug)]
struct Owned {
    direction: Direction,
    action: Action,
    local: AddressSelector,
    remote: AddressSelector,
}

fn tables(policies: &[Owned]) -> SteeringTables {
    let mut tables = SteeringTables::default();
    tables.put_policies(policies.iter().map(|policy| SteeringPolicy {
        direction: policy.direction,
        action: policy.action,
        local: &policy.local,
        remote: &policy.remote,
    }));
    tables
}

/// An address as a prefix of full length.
fn host(version: Version, bits: u128) -> Prefix {
    Prefix::new(version, bits, 128)
}

fn selects(selector: &AddressSelector, address: Prefix) -> bool {
    match selector {
        AddressSelector::Any => true,
        AddressSelector::Ranges(ranges) => ranges.iter().any(|range| {
            range.version == address.version && (range.first..=range.last).contains(&address.bits)
        }),
    }
}

/// What the trie must answer: the groups of every policy that selects the address.
fn brute_force(
    policies: &[Owned],
    direction: Direction,
    side: fn(&Owned) -> &AddressSelector,
    address: Prefix,
) -> Groups {
    let of_direction = policies
        .iter()
        .filter(|policy| policy.direction == direction);
    let selecting = of_direction
        .enumerate()
        .filter(|(_, policy)| selects(side(policy), address));
    selecting.fold(Groups::default(), |groups, (index, policy)| {
        let any = 1 << (index % 64);
        let closed = if policy.action == Action::Bypass {
            0
        } else {
            any
        };
        groups.union(Groups { any, closed })
    })
}

/// Addresses crowd in 16 bits, so that prefixes cover and touch one another.
fn address() -> impl Strategy<Value = (Version, u128)> {
    (any::<bool>(), any::<u16>()).prop_map(|(is_v4, low)| {
        if is_v4 {
            let address = Ipv4Addr::from_bits(0x0a00_0000 | u32::from(low));
            (Version::V4, packet::address_bits(address.into()))
        } else {
            let address = Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(low));
            (Version::V6, packet::address_bits(address.into()))
        }
    })
}

fn selector() -> impl Strategy<Value = AddressSelector> {
    let range =
        (address(), any::<u16>(), any::<bool>()).prop_map(|((version, bits), size, odd)| {
            // Half of them prefixes, half anything.
            let size = u128::from(size >> (size % 16));
            let first = if odd { bits } else { bits & !size };
            let last = if odd { bits + size } else { bits | size };
            AddressRange {
                version,
                first,
                last,
            }
        });
    prop_oneof![
        1 => Just(AddressSelector::Any),
        9 => vec(range, 1..4).prop_map(AddressSelector::Ranges),
    ]
}

fn policies(count: usize) -> impl Strategy<Value = Vec<Owned>> {
    let direction = prop_oneof![Just(Direction::In), Just(Direction::Out)];
    let action = prop_oneof![
        Just(Action::Protect),
        Just(Action::Bypass),
        Just(Action::Discard)
    ];
    let policy = (direction, action, selector(), selector()).prop_map(
        |(direction, action, local, remote)| Owned {
            direction,
            action,
            local,
            remote,
        },
    );
    vec(policy, 0..count)
}

proptest! {
    #[test]
    fn a_trie_answers_with_the_groups_of_all_policies(
        policies in policies(100),
        addresses in vec(address(), 50),
    ) {
        let tables = tables(&policies);
        for (version, bits) in addresses {
            let address = host(version, bits);
            for (direction, pair) in
                [(Direction::Out, &tables.outbound), (Direction::In, &tables.inbound)]
            {
                let local = brute_force(&policies, direction, |policy| &policy.local, address);
                prop_assert_eq!(effective(&pair.local, address), local);
                let remote = brute_force(&policies, direction, |policy| &policy.remote, address);
                prop_assert_eq!(effective(&pair.remote, address), remote);
            }
        }
    }

    #[test]
    fn a_collapsed_trie_takes_at_least_as_much(
        policies in policies(60),
        addresses in vec(address(), 50),
        limit in 2_usize..40,
    ) {
        let whole = tables(&policies).outbound.local;
        let collapsed = inherit(collapse(whole.clone(), limit));
        prop_assert!(collapsed.len() <= limit);
        for (version, bits) in addresses {
            let address = host(version, bits);
            prop_assert!(effective(&collapsed, address).contains(effective(&whole, address)));
        }
    }

    #[test]
    fn a_union_answers_for_both(
        old in policies(20),
        new in policies(20),
        addresses in vec(address(), 50),
    ) {
        let (old, new) = (tables(&old).inbound.remote, tables(&new).inbound.remote);
        let both = union(&old, &new);
        for (version, bits) in addresses {
            let address = host(version, bits);
            let expected = effective(&old, address).union(effective(&new, address));
            prop_assert_eq!(effective(&both, address), expected);
        }
    }

    #[test]
    fn the_prefixes_of_a_range_are_the_range(
        (version, bits) in address(),
        size in 0_u128..5000,
    ) {
        let range = AddressRange { version, first: bits, last: bits + size };
        let prefixes = prefixes_of_range(range);
        let mut next = range.first;
        for prefix in &prefixes {
            prop_assert_eq!(prefix.bits, next);
            next += 1 << (128 - prefix.length);
        }
        prop_assert_eq!(next, range.last + 1);
        prop_assert!(prefixes.len() <= 2 * 128);
    }
}

fn v4(text: &str, length: u8) -> Prefix {
    Prefix::of(text.parse().unwrap(), length)
}

fn range(first: &str, last: &str) -> AddressRange {
    let bits = |text: &str| packet::address_bits(text.parse().unwrap());
    let version = if first.contains(':') {
        Version::V6
    } else {
        Version::V4
    };
    AddressRange {
        version,
        first: bits(first),
        last: bits(last),
    }
}

#[test]
fn a_range_becomes_the_fewest_prefixes() {
    assert_eq!(
        prefixes_of_range(range("10.0.0.1", "10.0.0.6")),
        [
            v4("10.0.0.1", 32),
            v4("10.0.0.2", 31),
            v4("10.0.0.4", 31),
            v4("10.0.0.6", 32),
        ]
    );
    assert_eq!(
        prefixes_of_range(range("10.1.0.0", "10.1.255.255")),
        [v4("10.1.0.0", 16)]
    );
    assert_eq!(
        prefixes_of_range(range("0.0.0.0", "255.255.255.255")),
        [v4("0.0.0.0", 0)]
    );
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_eq!(
        prefixes_of_range(range("::", last)),
        [Prefix::all(Version::V6)]
    );
    assert_eq!(prefixes_of_range(range(last, last)).len(), 1);
}

#[test]
fn what_adds_nothing_is_left_out() {
    let any = |selector| Owned {
        direction: Direction::Out,
        action: Action::Protect,
        local: selector,
        remote: AddressSelector::Any,
    };
    let wide = range("10.1.0.0", "10.1.255.255");
    let narrow = range("10.1.2.0", "10.1.2.255");
    let tables = tables(&[any(AddressSelector::Ranges(vec![wide, narrow]))]);
    let expected = Groups { any: 1, closed: 1 };
    assert_eq!(
        tables.outbound.local,
        Groupings::from([(v4("10.1.0.0", 16), expected)])
    );
    assert_eq!(
        tables.outbound.remote.len(),
        2,
        "everything of either family"
    );
}

#[test]
fn five_thousand_hosts_collapse_to_the_limit_and_stay_taken() {
    let hosts: Vec<AddressRange> = (0..5000_u32)
        .map(|index| {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + index * 7).to_string();
            range(&address, &address)
        })
        .collect();
    let policy = Owned {
        direction: Direction::In,
        action: Action::Protect,
        local: AddressSelector::Ranges(hosts.clone()),
        remote: AddressSelector::Any,
    };
    let local = tables(&[policy]).inbound.local;
    assert!(local.len() <= limits::PREFIXES as usize, "{}", local.len());
    for host in hosts {
        assert_ne!(
            effective(&local, Prefix::new(host.version, host.first, 128)).any,
            0
        );
    }
}

#[test]
fn a_protected_port_knows_no_endpoints() {
    let mut tables = SteeringTables::default();
    let wan: IpAddr = "192.0.2.1".parse().unwrap();
    tables.endpoints.insert(wan, false);
    tables.local.insert(wan);
    let contents = MapContents::of(&tables, Side::Protected);
    assert!(contents.endpoints.is_empty());
    assert_eq!(contents.local.len(), 1);
    assert_eq!(
        MapContents::of(&tables, Side::Unprotected).endpoints.len(),
        1
    );
}

#[test]
fn a_trie_key_has_the_family_in_front() {
    let PrefixKey { length, address } = v4("10.1.2.3", 16).key();
    assert_eq!(
        (length, address),
        (TRIE_FAMILY_BITS + 16, Address::v4([10, 1, 0, 0]))
    );
    let PrefixKey { length, address } = Prefix::of("2001:db8::1".parse().unwrap(), 32).key();
    assert_eq!(length, TRIE_FAMILY_BITS + 32);
    assert_eq!(
        address,
        IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96)).into()
    );
}
