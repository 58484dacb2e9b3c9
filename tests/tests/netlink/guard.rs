//! The guard blocks what policy protects in the kernel's own path, and nothing else.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use ipsec::packet::{Version, address_bits};
use ipsec::policy::{
    Action, AddressRange, AddressSelector, PolicyParameters, PortSelector, Selector, TcpMss,
};
use ipsec::sa::association::Direction;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use xipsec::netlink::{Guard, GuardParameters, PortSide};
use xipsec::port::settings::Side;

use super::world::{Namespace, join, skip};

/// Host A – gateway – host B, with the kernel forwarding between them in both families, and a
/// second inside network that is no port.
struct Net {
    a: Namespace,
    gateway: Namespace,
    b: Namespace,
    c: Namespace,
}

fn net() -> Net {
    let [a, gateway, b, c] = [(); 4].map(|()| Namespace::new());
    join(&gateway, "wan0", &b, "eth0");
    join(&gateway, "lan0", &a, "eth0");
    join(&gateway, "other0", &c, "eth0");
    for (interface, subnet) in [("wan0", "2"), ("lan0", "1"), ("other0", "3")] {
        gateway.ip(&format!("addr add 10.{subnet}.0.1/16 dev {interface}"));
        gateway.ip(&format!(
            "addr add 2001:db8:{subnet}::1/64 dev {interface} nodad"
        ));
    }
    for (host, subnet) in [(&a, "1"), (&b, "2"), (&c, "3")] {
        host.ip(&format!("addr add 10.{subnet}.0.2/16 dev eth0"));
        host.ip(&format!("addr add 2001:db8:{subnet}::2/64 dev eth0 nodad"));
        host.ip(&format!("route add default via 10.{subnet}.0.1"));
        host.ip(&format!("route add default via 2001:db8:{subnet}::1"));
    }
    b.ip("addr add 10.9.0.2/32 dev lo");
    gateway.ip("route add 10.9.0.0/16 via 10.2.0.2");
    gateway.sysctl("net.ipv4.ip_forward=1");
    gateway.sysctl("net.ipv6.conf.all.forwarding=1");
    Net { a, gateway, b, c }
}

fn skip_guard(test: &str) -> bool {
    if skip(test) {
        return true;
    }
    let there = Command::new("nft").arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED {test}: needs nft (apt install nftables)");
    }
    !there
}

fn prefix(text: &str) -> AddressSelector {
    let (address, length) = text.split_once('/').unwrap();
    let address: IpAddr = address.parse().unwrap();
    let length: u32 = length.parse().unwrap();
    let (version, bits) = match address {
        IpAddr::V4(_) => (Version::V4, 32),
        IpAddr::V6(_) => (Version::V6, 128),
    };
    let host = u128::MAX.checked_shr(128 - bits + length).unwrap_or(0);
    let first = address_bits(address);
    AddressSelector::Ranges(vec![AddressRange {
        version,
        first,
        last: first | host,
    }])
}

/// The policy and its mirror image.
fn both(
    name: &str,
    action: Action,
    local: &str,
    remote: &str,
    priority: u32,
) -> [PolicyParameters; 2] {
    [("in", Direction::In), ("out", Direction::Out)].map(|(suffix, direction)| PolicyParameters {
        name: format!("{name}-{suffix}"),
        direction,
        action,
        selector: Selector {
            local: prefix(local),
            remote: prefix(remote),
            protocol: None,
            local_port: PortSelector::Any,
            remote_port: PortSelector::Any,
            icmp: None,
        },
        priority,
        tcp_mss: TcpMss::Off,
        bundles: Vec::new(),
    })
}

fn load(guard: &mut Guard, policies: &[PolicyParameters], discard_unmatched: bool) {
    let port = |name: &str, side| PortSide {
        name: name.to_owned(),
        side,
    };
    let ports = [
        port("wan0", Side::Unprotected),
        port("lan0", Side::Protected),
    ];
    guard
        .load(&GuardParameters {
            policies,
            ports: &ports,
            discard_unmatched,
        })
        .unwrap();
}

fn dropped(guard: &Guard, name: &str) -> u64 {
    let counts = guard.counts().unwrap();
    let count = counts
        .iter()
        .find(|count| count.policy.as_deref() == Some(name));
    count.map_or(0, |count| count.packets)
}

fn ping(from: &Namespace, to: &str) -> bool {
    from.try_run(&format!("ping -n -c 1 -W 1 {to}"))
}

#[test]
fn what_policy_protects_is_blocked_in_both_directions_and_the_rest_is_not() {
    if skip_guard("what_policy_protects_is_blocked_in_both_directions_and_the_rest_is_not") {
        return;
    }
    let net = net();
    let mut policies = both("paris", Action::Protect, "10.1.0.0/16", "10.2.0.0/16", 100).to_vec();
    policies.extend(both(
        "six",
        Action::Protect,
        "2001:db8:1::/64",
        "2001:db8:2::/64",
        100,
    ));
    policies.extend(both(
        "gift",
        Action::Bypass,
        "10.1.0.2/32",
        "10.9.0.0/24",
        50,
    ));
    policies.extend(both(
        "never",
        Action::Discard,
        "10.0.0.0/8",
        "10.9.0.0/16",
        60,
    ));
    policies.extend(both(
        "third",
        Action::Protect,
        "10.3.0.0/16",
        "10.2.0.0/16",
        100,
    ));
    for (from, to) in [
        (&net.a, "10.2.0.2"),
        (&net.b, "2001:db8:1::2"),
        (&net.c, "10.2.0.2"),
    ] {
        assert!(
            ping(from, to),
            "the kernel forwards to {to} without a guard"
        );
    }
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        load(&mut guard, &policies, false);
        assert!(!ping(&net.a, "10.2.0.2") && !ping(&net.b, "10.1.0.2"));
        assert!(!ping(&net.a, "2001:db8:2::2") && !ping(&net.b, "2001:db8:1::2"));
        assert_eq!(
            (dropped(&guard, "paris-out"), dropped(&guard, "paris-in")),
            (1, 1)
        );
        assert_eq!(
            (dropped(&guard, "six-out"), dropped(&guard, "six-in")),
            (1, 1)
        );
        // From an interface that is no port, and from the machine itself.
        assert!(!ping(&net.c, "10.2.0.2"));
        assert_eq!(dropped(&guard, "third-out"), 1);
        assert!(
            !net.gateway
                .try_run("ping -n -c 1 -W 1 -I 10.1.0.1 10.2.0.2")
        );
        assert_eq!(dropped(&guard, "paris-out"), 2);
        // The SPD's order.
        assert!(ping(&net.a, "10.9.0.2") && !ping(&net.gateway, "-I 10.1.0.1 10.9.0.2"));
        assert_eq!(dropped(&guard, "never-out"), 1);
        // ARP, neighbour discovery and what no policy names.
        net.b.ip("neigh flush all");
        net.gateway.ip("neigh flush all");
        assert!(ping(&net.b, "10.2.0.1") && ping(&net.gateway, "2001:db8:2::2"));
        assert!(ping(&net.a, "10.3.0.2") && ping(&net.c, "2001:db8:2::2"));
        // A second load keeps what was counted.
        policies.truncate(4);
        load(&mut guard, &policies, false);
        assert_eq!(dropped(&guard, "paris-out"), 2);
        assert!(!ping(&net.a, "10.2.0.2") && ping(&net.c, "10.2.0.2"));
        assert_eq!(dropped(&guard, "paris-out"), 3);
        // A start after a crash takes the table over; a clean stop removes it.
        let mut next = Guard::new();
        load(&mut next, &policies[..2], false);
        assert!(!ping(&net.a, "10.2.0.2") && ping(&net.a, "2001:db8:2::2"));
        next.remove().unwrap();
        assert!(ping(&net.a, "10.2.0.2"));
        assert_eq!(net.gateway.run("nft list tables"), "");
    });
}

#[test]
fn nat_does_not_open_a_way_around() {
    if skip_guard("nat_does_not_open_a_way_around") {
        return;
    }
    let net = net();
    let policies = both("paris", Action::Protect, "10.1.0.0/16", "10.9.0.0/16", 100);
    net.gateway.run("nft add table ip nat");
    net.gateway
        .run("nft add chain ip nat post { type nat hook postrouting priority srcnat ; }");
    net.gateway
        .run("nft add rule ip nat post oifname wan0 masquerade");
    net.gateway
        .run("nft add chain ip nat pre { type nat hook prerouting priority dstnat ; }");
    net.gateway
        .run("nft add rule ip nat pre iifname wan0 ip daddr 10.2.0.99 dnat to 10.1.0.2");
    let ping_dnat = || net.b.try_run("ping -n -c 1 -W 1 -I 10.9.0.2 10.2.0.99");
    net.gateway.ip("addr add 10.2.0.99/32 dev wan0");
    assert!(ping(&net.a, "10.9.0.2") && ping_dnat());
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        load(&mut guard, &policies, false);
        assert!(!ping(&net.a, "10.9.0.2") && !ping_dnat());
        assert_eq!(
            (dropped(&guard, "paris-out"), dropped(&guard, "paris-in")),
            (1, 1)
        );
        assert!(
            !net.gateway
                .try_run("ping -n -c 1 -W 1 -I 10.1.0.1 10.9.0.2")
        );
        assert_eq!(dropped(&guard, "paris-out"), 2);
    });
}

#[test]
fn later_fragments_share_the_fate_of_what_is_protected() {
    if skip_guard("later_fragments_share_the_fate_of_what_is_protected") {
        return;
    }
    let net = net();
    let mut policies = both("udp", Action::Protect, "10.1.0.0/16", "10.2.0.0/16", 100).to_vec();
    policies.extend(both(
        "udp6",
        Action::Protect,
        "2001:db8:1::/64",
        "2001:db8:2::/64",
        100,
    ));
    policies.extend(both(
        "all",
        Action::Bypass,
        "10.1.0.0/16",
        "10.2.0.0/16",
        200,
    ));
    for policy in &mut policies[..4] {
        policy.selector.protocol = Some(17);
        policy.selector.remote_port = PortSelector::List {
            opaque: false,
            ranges: vec![(5000, 5100)],
        };
    }
    let counter = "nft add table inet seen ; add chain inet seen in { type filter hook prerouting \
                   priority -310 ; } ; add rule inet seen in ip saddr 10.1.0.2 counter ; add chain inet seen six { \
                   type filter hook prerouting priority -310 ; } ; add rule inet seen six ip6 \
                   saddr 2001:db8:1::2 counter";
    net.b.run(counter);
    let seen = || {
        let listing = net.b.run("nft list table inet seen");
        let mut counters = listing.split("packets ").skip(1);
        let mut next = || {
            counters
                .next()
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        (next(), next())
    };
    let send = |port: u16| {
        net.a.enter(|| {
            for address in ["10.2.0.2", "2001:db8:2::2"] {
                let any = if address.contains(':') {
                    "[::]:9000"
                } else {
                    "0.0.0.0:9000"
                };
                let socket = std::net::UdpSocket::bind(any).unwrap();
                socket.send_to(&[0x13; 4000], (address, port)).unwrap();
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(ping(&net.a, "10.2.0.2") && ping(&net.a, "2001:db8:2::2"));
    net.a.ip("neigh change 10.1.0.1 nud permanent dev eth0");
    let (v4, v6): (u32, u32) = seen();
    send(5050);
    assert_eq!(seen(), (v4 + 3, v6 + 3), "three fragments without a guard");
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        load(&mut guard, &policies, false);
        let (v4, v6) = seen();
        send(5050);
        assert_eq!(seen(), (v4, v6), "not one fragment in clear");
        assert_eq!(
            (dropped(&guard, "udp-out"), dropped(&guard, "udp6-out")),
            (3, 3)
        );
        // The ports of the first tell that it is not protected; those of the others tell nothing.
        send(6000);
        assert_eq!(seen(), (v4 + 1, v6 + 1));
        assert!(ping(&net.a, "10.2.0.2"));
        // Nor does a bypass for ports let fragments through whose payload looks like a header.
        for policy in &mut policies[..4] {
            policy.action = Action::Bypass;
            let ranges = vec![(0x1313, 0x1313)];
            policy.selector.remote_port = PortSelector::List {
                opaque: false,
                ranges,
            };
        }
        policies.truncate(4);
        policies.extend(both(
            "no",
            Action::Discard,
            "10.1.0.0/16",
            "10.2.0.0/16",
            200,
        ));
        policies.extend(both(
            "no6",
            Action::Discard,
            "2001:db8:1::/64",
            "2001:db8:2::/64",
            200,
        ));
        load(&mut guard, &policies, false);
        let (v4, v6) = seen();
        send(5050);
        assert_eq!(seen(), (v4, v6));
        send(0x1313);
        assert_eq!(seen(), (v4 + 1, v6 + 1));
    });
}

#[test]
fn esp_ike_and_what_keeps_the_machine_reachable_pass_a_closed_guard() {
    if skip_guard("esp_ike_and_what_keeps_the_machine_reachable_pass_a_closed_guard") {
        return;
    }
    let net = net();
    // Everything is refused but what is built in, and one bypass for remote logins.
    let mut policies = both("nothing", Action::Discard, "0.0.0.0/0", "0.0.0.0/0", 1000).to_vec();
    policies.extend(both(
        "login",
        Action::Bypass,
        "10.2.0.1/32",
        "0.0.0.0/0",
        10,
    ));
    for policy in policies.iter_mut().skip(2) {
        policy.selector.protocol = Some(6);
        policy.selector.local_port = PortSelector::List {
            opaque: false,
            ranges: vec![(22, 22)],
        };
    }
    net.gateway.run(
        "nft add table inet seen ; add chain inet seen in { type filter hook input priority 300 ; } \
         ; add rule inet seen in ip protocol esp counter comment saw_esp ; \
         add rule inet seen in udp dport 500 counter comment saw_ike ; \
         add rule inet seen in udp sport 500 udp dport 53 counter comment saw_dns",
    );
    let seen = |what: &str| {
        let listing = net.gateway.run("nft list table inet seen");
        let line = listing
            .lines()
            .find(|line| line.contains(&format!("\"saw_{what}\"")))
            .unwrap();
        let mut words = line.split(' ').skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse::<u32>().unwrap()
    };
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        load(&mut guard, &policies, true);
        let login = std::net::TcpListener::bind("10.2.0.1:22").unwrap();
        let other = std::net::TcpListener::bind("10.2.0.1:23").unwrap();
        net.b.enter(|| {
            let patience = std::time::Duration::from_secs(1);
            let connect = |port: u16| {
                let address = std::net::SocketAddr::from(([10, 2, 0, 1], port));
                std::net::TcpStream::connect_timeout(&address, patience)
            };
            connect(22).unwrap();
            assert!(connect(23).is_err());
            let esp = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ESP)).unwrap();
            let address = std::net::SocketAddr::from(([10, 2, 0, 1], 0));
            sendto(&esp, &[1; 40], SendFlags::empty(), &address).unwrap();
            let ike = std::net::UdpSocket::bind("10.2.0.2:500").unwrap();
            ike.send_to(&[0; 28], "10.2.0.1:500").unwrap();
            ike.send_to(&[0; 28], "10.2.0.1:53").unwrap();
        });
        drop((login, other));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!((seen("esp"), seen("ike"), seen("dns")), (1, 1, 0));
        // Out of the machine too.
        let ike = std::net::UdpSocket::bind("10.2.0.1:500").unwrap();
        ike.send_to(&[0; 28], "10.2.0.2:500").unwrap();
        assert!(ike.send_to(&[0; 28], "10.2.0.2:53").is_ok());
        let other = std::net::UdpSocket::bind("10.2.0.1:5353").unwrap();
        assert!(
            other.send_to(&[0; 28], "10.2.0.2:53").is_err(),
            "refused at the machine's own exit"
        );
        assert!(
            !ping(&net.a, "2001:db8:2::2"),
            "unmatched discard, between the sides"
        );
        assert!(ping(&net.a, "2001:db8:3::2") && ping(&net.b, "2001:db8:2::1"));
        let counts = guard.counts().unwrap();
        assert!(
            counts
                .iter()
                .any(|count| count.policy.is_none() && count.packets > 0)
        );
    });
}

#[test]
fn replacing_the_rules_under_load_neither_loses_nor_leaks() {
    if skip_guard("replacing_the_rules_under_load_neither_loses_nor_leaks") {
        return;
    }
    let net = net();
    let one = both("one", Action::Protect, "10.1.0.0/16", "10.9.0.0/16", 100).to_vec();
    let mut two = one.clone();
    two.extend(both(
        "two",
        Action::Discard,
        "10.7.0.0/16",
        "10.8.0.0/16",
        90,
    ));
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        load(&mut guard, &one, false);
        let flood = |to: &str| {
            let mut command = net.a.command("ping");
            command.args(["-n", "-q", "-i", "0.001", "-c", "500", "-W", "1", to]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        };
        let [allowed, protected] = ["10.2.0.2", "10.9.0.2"].map(flood);
        let done = AtomicBool::new(false);
        let (allowed, protected, replaced) = std::thread::scope(|scope| {
            let outputs = scope.spawn(|| {
                let outputs = [allowed, protected].map(|one| one.wait_with_output().unwrap());
                done.store(true, Ordering::Relaxed);
                outputs.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            });
            let mut replaced = 0;
            while !done.load(Ordering::Relaxed) {
                load(
                    &mut guard,
                    if replaced % 2 == 0 { &two } else { &one },
                    false,
                );
                replaced += 1;
            }
            let [allowed, protected] = outputs.join().unwrap();
            (allowed, protected, replaced)
        });
        assert!(replaced > 5, "{replaced}");
        assert!(allowed.contains(" 0% packet loss"), "{allowed}");
        assert!(
            protected.contains("500 packets transmitted, 0 received"),
            "{protected}"
        );
        let counted = dropped(&guard, "one-out");
        println!("{replaced} replacements; {counted} of 500 drops counted");
    });
}

#[test]
fn a_table_that_somebody_removed_is_an_error_that_says_what_to_do() {
    if skip_guard("a_table_that_somebody_removed_is_an_error_that_says_what_to_do") {
        return;
    }
    let namespace = Namespace::new();
    namespace.enter(|| {
        let error = Guard::new().counts().unwrap_err().to_string();
        assert!(error.contains("guard = \"open\""), "{error}");
    });
}
