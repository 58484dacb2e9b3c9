//! The guard and what stands in headers: fragments, ESP, IKE, remote logins.

use ipsec::policy::{PolicyParameters, PortSelector};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use xipsec::netlink::Guard;

use super::guard_net::{dropped, load, load_with, net, ping, policies, skip_guard};
use super::world::Namespace;

/// Policies, those of the first lines for one UDP port of the remote side alone.
fn with_ports(lines: &[&str], rest: &[&str], port: u16) -> Vec<PolicyParameters> {
    let mut all = policies(lines);
    for policy in &mut all {
        policy.selector.protocol = Some(17);
        let ranges = vec![(port, port)];
        policy.selector.remote_port = PortSelector::List {
            opaque: false,
            ranges,
        };
    }
    all.extend(policies(rest));
    all
}

/// Sends a UDP packet of three fragments over each family.
fn send_fragments(from: &Namespace, port: u16) {
    from.enter(|| {
        for (own, address) in [("0.0.0.0:9000", "10.2.0.2"), ("[::]:9000", "2001:db8:2::2")] {
            let socket = std::net::UdpSocket::bind(own).unwrap();
            socket.send_to(&[0x13; 4000], (address, port)).unwrap();
        }
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// From host B: a remote login, another connection, ESP, IKE, and DNS from IKE's port.
fn knock() {
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
    std::thread::sleep(std::time::Duration::from_millis(50));
}

#[test]
fn later_fragments_share_the_fate_of_what_is_protected() {
    if skip_guard("later_fragments_share_the_fate_of_what_is_protected") {
        return;
    }
    let net = net();
    let mut lines = vec![
        "udp protect 10.1.0.0/16 10.2.0.0/16 100",
        "udp6 protect 2001:db8:1::/64 2001:db8:2::/64 100",
    ];
    let protect = with_ports(&lines, &["all bypass 10.1.0.0/16 10.2.0.0/16 200"], 5050);
    lines[0] = "udp bypass 10.1.0.0/16 10.2.0.0/16 100";
    lines[1] = "udp6 bypass 2001:db8:1::/64 2001:db8:2::/64 100";
    let discard = [
        "no discard 10.1.0.0/16 10.2.0.0/16 200",
        "no6 discard 2001:db8:1::/64 2001:db8:2::/64 200",
    ];
    let bypass = with_ports(&lines, &discard, 0x1313);
    let counter = "nft add table inet seen ; add chain inet seen in { type filter hook prerouting \
                   priority -310 ; } ; add rule inet seen in ip saddr 10.1.0.2 \
                   counter ; add chain inet seen six { type filter hook prerouting priority -310 ; \
                   } ; add rule inet seen six ip6 saddr 2001:db8:1::2 counter";
    net.b.run(counter);
    let seen = || {
        let listing = net.b.run("nft list table inet seen");
        let counters = listing.split("packets ").skip(1);
        let counters = counters.map(|text| text.split(' ').next().unwrap().parse().unwrap());
        let counters: Vec<u32> = counters.collect();
        (counters[0], counters[1])
    };
    let send = |port| send_fragments(&net.a, port);
    assert!(ping(&net.a, "10.2.0.2") && ping(&net.a, "2001:db8:2::2"));
    net.a.ip("neigh change 10.1.0.1 nud permanent dev eth0");
    let (v4, v6) = seen();
    send(5050);
    assert_eq!(seen(), (v4 + 3, v6 + 3), "three fragments without a guard");
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        load(&mut guard, &protect, false);
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
        load(&mut guard, &bypass, false);
        let (v4, v6) = seen();
        send(5050);
        assert_eq!(seen(), (v4, v6));
        send(0x1313);
        assert_eq!(seen(), (v4 + 1, v6 + 1));
    });
}

/// From host A to host B, a later fragment of IPv6 whose datagram has destination options in front
/// of its upper layer, so that it names those.
fn send_nameless(from: &Namespace) {
    let [source, destination] = ["2001:db8:1::2", "2001:db8:2::2"]
        .map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let fragment = [60, 0, 0, 64, 0, 0, 0, 9];
    let start = [0x60, 0, 0, 0, 0, 24, 44, 64];
    let packet = [&start[..], &source, &destination, &fragment, &[7; 16]].concat();
    from.enter(|| {
        let raw = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::RAW)).unwrap();
        let to = std::net::SocketAddr::from((destination, 0));
        sendto(&raw, &packet, SendFlags::empty(), &to).unwrap();
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
}

#[test]
fn a_fragment_without_even_a_protocol_does_not_pass_who_protects_one() {
    if skip_guard("a_fragment_without_even_a_protocol_does_not_pass_who_protects_one") {
        return;
    }
    let net = net();
    let nets = "2001:db8:1::/64 2001:db8:2::/64";
    let lines = [
        &format!("tcp protect {nets} 100")[..],
        &format!("all bypass {nets} 200"),
    ];
    let mut guarded = policies(&lines);
    for policy in guarded.iter_mut().take(2) {
        policy.selector.protocol = Some(6);
    }
    net.b.run(
        "nft add table inet seen ; add chain inet seen in { type filter hook prerouting priority \
         -410 ; } ; add rule inet seen in frag nexthdr 60 counter",
    );
    let seen = || net.b.run("nft list table inet seen").contains("packets 1 ");
    assert!(ping(&net.a, "2001:db8:2::2"));
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        load(&mut guard, &guarded, false);
        send_nameless(&net.a);
        assert!(!seen(), "in clear");
        assert_eq!(dropped(&guard, "tcp-out"), 1);
        assert!(ping(&net.a, "2001:db8:2::2"));
        // Where the other policy comes first it passes.
        guarded[..2].iter_mut().for_each(|it| it.priority = 300);
        load(&mut guard, &guarded, false);
        send_nameless(&net.a);
        assert!(seen(), "a policy for all protocols takes it");
    });
}

#[test]
fn esp_ike_and_what_keeps_the_machine_reachable_pass_a_closed_guard() {
    if skip_guard("esp_ike_and_what_keeps_the_machine_reachable_pass_a_closed_guard") {
        return;
    }
    let net = net();
    // Everything is refused but what is built in, and one bypass for remote logins.
    let mut policies = policies(&[
        "nothing discard 0.0.0.0/0 0.0.0.0/0 1000",
        "login bypass 10.2.0.1/32 0.0.0.0/0 10",
    ]);
    for policy in policies.iter_mut().skip(2) {
        policy.selector.protocol = Some(6);
        policy.selector.local_port = PortSelector::List {
            opaque: false,
            ranges: vec![(22, 22)],
        };
    }
    net.gateway.run(
        "nft add table inet seen ; add chain inet seen in { type filter hook input priority 300 ; \
         } ; add rule inet seen in ip protocol esp counter comment saw_esp ; \
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
        net.b.enter(knock);
        drop((login, other));
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

/// Counts what the machine is given, by a comment of each rule.
fn count_input(machine: &Namespace, rules: &[(&str, &str)]) {
    let mut text = "nft add table inet seen ; add chain inet seen in { type filter hook input \
                    priority 300 ; }"
        .to_owned();
    for (comment, matched) in rules {
        text += &format!(" ; add rule inet seen in {matched} counter comment saw_{comment}");
    }
    machine.run(&text);
}

/// What a rule of [`count_input`] has counted.
fn input_of(machine: &Namespace, what: &str) -> u32 {
    let listing = machine.run("nft list table inet seen");
    let comment = format!("\"saw_{what}\"");
    let line = listing.lines().find(|line| line.contains(&comment));
    let mut words = line
        .unwrap()
        .split(' ')
        .skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

/// From host B, over each family: a datagram to the gateway.
fn send_both(from: u16, to: u16, data: &[u8]) {
    for (own, address) in [("10.2.0.2", "10.2.0.1"), ("2001:db8:2::2", "2001:db8:2::1")] {
        let socket = std::net::UdpSocket::bind((own, from)).unwrap();
        socket.send_to(data, (address, to)).unwrap();
    }
}

#[test]
fn what_keys_and_leases_need_passes_although_policy_covers_the_endpoints() {
    if skip_guard("what_keys_and_leases_need_passes_although_policy_covers_the_endpoints") {
        return;
    }
    let net = net();
    let all = policies(&[
        "all protect 0.0.0.0/0 0.0.0.0/0 100",
        "all6 protect ::/0 ::/0 100",
    ]);
    // Fragments are counted once they are whole again.
    count_input(
        &net.gateway,
        &[
            ("ike", "udp dport 500 udp length 4008"),
            ("other", "udp dport 501"),
            ("lease", "udp dport { 68, 546 }"),
            ("relay", "udp dport { 67, 547 }"),
            ("marked", "udp dport 10000 udp length 40"),
            ("esp", "udp dport 10000 udp length 41"),
            ("byte", "udp dport 10000 udp length 9"),
        ],
    );
    assert!(ping(&net.b, "10.2.0.1") && ping(&net.b, "2001:db8:2::1"));
    let knock = || {
        send_both(500, 500, &[7; 4000]);
        send_both(500, 501, &[7; 4000]);
        send_both(67, 68, &[7; 32]);
        send_both(547, 546, &[7; 32]);
        send_both(67, 67, &[7; 32]);
        send_both(547, 547, &[7; 32]);
        send_both(9, 10_000, &[0; 32]);
        send_both(9, 10_000, &[7; 33]);
        send_both(9, 10_000, &[0xff]);
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let names = ["ike", "other", "lease", "relay", "marked", "esp", "byte"];
    let seen = || names.map(|name| input_of(&net.gateway, name));
    net.b.enter(knock);
    assert_eq!(seen(), [2, 2, 4, 4, 2, 2, 2], "without a guard");
    net.gateway.enter(|| {
        let mut guard = Guard::new();
        let endpoints = ["10.2.0.1", "2001:db8:2::1"].map(|text| (text.parse().unwrap(), 10_000));
        load_with(&mut guard, &all, &endpoints, false);
        net.b.enter(knock);
        assert_eq!(seen(), [4, 2, 8, 4, 4, 2, 4]);
    });
}
