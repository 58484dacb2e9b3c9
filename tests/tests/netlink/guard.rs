//! The guard blocks what policy protects in the kernel's own path, and nothing else.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use ipsec::policy::Action;
use xipsec::netlink::Guard;

use super::guard_net::{both, dropped, load, net, ping, policies, skip_guard};
use super::world::Namespace;

#[test]
fn what_policy_protects_is_blocked_in_both_directions_and_the_rest_is_not() {
    if skip_guard("what_policy_protects_is_blocked_in_both_directions_and_the_rest_is_not") {
        return;
    }
    let net = net();
    let mut policies = policies(&[
        "paris protect 10.1.0.0/16 10.2.0.0/16 100",
        "six protect 2001:db8:1::/64 2001:db8:2::/64 100",
        "gift bypass 10.1.0.2/32 10.9.0.0/24 50",
        "never discard 10.0.0.0/8 10.9.0.0/16 60",
        "third protect 10.3.0.0/16 10.2.0.0/16 100",
    ]);
    assert!(ping(&net.a, "10.2.0.2") && ping(&net.b, "2001:db8:1::2"));
    assert!(
        ping(&net.c, "10.2.0.2"),
        "the kernel forwards without a guard"
    );
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
