//! The mirror follows the kernel's tables.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xipsec::netlink::{Kernel, Mirror, View};
use xipsec::route::{Hop, PortIndex, Route, Target};

use super::world::{Namespace, join, skip};

/// A gateway with two ports, `wan0` and `lan0`, and an interface `other0` that is none.
fn gateway() -> [Namespace; 2] {
    let [gateway, peer] = [Namespace::new(), Namespace::new()];
    for name in ["wan0", "lan0", "other0"] {
        join(&gateway, name, &peer, name);
    }
    gateway.ip("addr add 192.0.2.1/24 dev wan0");
    gateway.ip("addr add 10.1.0.1/16 dev lan0");
    gateway.ip("addr add 172.16.0.1/24 dev other0");
    gateway.ip("addr add 2001:db8:1::1/64 dev wan0 nodad");
    gateway.ip("addr add 2001:db8:2::1/64 dev lan0 nodad");
    [gateway, peer]
}

async fn mirror() -> Mirror {
    let ports = vec!["wan0".to_owned(), "lan0".to_owned()];
    Mirror::new(Kernel::connect().unwrap(), ports, "xipsec0".to_owned())
        .await
        .unwrap()
}

/// Follows changes until the view is as wanted; how long it took. Panics after five seconds.
async fn until(mirror: &mut Mirror, what: &str, wanted: impl Fn(&View) -> bool) -> Duration {
    let start = Instant::now();
    while !wanted(&mirror.view()) {
        let left = Duration::from_secs(5).saturating_sub(start.elapsed());
        match tokio::time::timeout(left, mirror.changed()).await {
            Ok(changes) => assert!(changes.unwrap().any()),
            Err(_) => panic!("{what}: not within five seconds: {:#?}", mirror.view()),
        }
    }
    start.elapsed()
}

fn hop(port: u16, via: Option<&str>, weight: u16) -> Hop {
    let via = via.map(|via| via.parse().unwrap());
    Hop {
        port: PortIndex(port),
        via,
        mtu: 0,
        weight,
    }
}

fn find<'a>(view: &'a View, prefix: &str) -> Option<&'a Route> {
    let (address, length) = prefix.split_once('/').unwrap();
    let address: IpAddr = address.parse().unwrap();
    let length: u8 = length.parse().unwrap();
    let wanted = |route: &&Route| route.address == address && route.prefix_length == length;
    let mut found = view.routes.iter().filter(wanted);
    let route = found.next();
    assert!(found.next().is_none(), "one route for each prefix");
    route
}

fn leads(view: &View, prefix: &str, hops: &[Hop]) -> bool {
    find(view, prefix).map(|route| &route.target) == Some(&Target::Hops(hops.to_vec()))
}

fn nowhere(view: &View, prefix: &str) -> bool {
    find(view, prefix).map(|route| &route.target) == Some(&Target::Nowhere)
}

#[test]
fn a_start_reads_what_is_there() {
    if skip("a_start_reads_what_is_there") {
        return;
    }
    let [gateway, _peer] = gateway();
    gateway.ip("route add 10.2.0.0/16 via 192.0.2.2 mtu 1400");
    gateway.ip("route add 10.3.0.0/16 via 172.16.0.2");
    gateway.ip("route add blackhole 10.4.0.0/16");
    gateway.ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev wan0");
    gateway.block_on(async || {
        let view = mirror().await.view();
        assert!(
            leads(&view, "192.0.2.0/24", &[hop(0, None, 1)]),
            "{view:#?}"
        );
        assert!(leads(&view, "10.1.0.0/16", &[hop(1, None, 1)]));
        assert!(leads(&view, "2001:db8:1::/64", &[hop(0, None, 1)]));
        let smaller = Hop {
            mtu: 1400,
            ..hop(0, Some("192.0.2.2"), 1)
        };
        assert!(leads(&view, "10.2.0.0/16", &[smaller]));
        assert!(
            nowhere(&view, "10.3.0.0/16"),
            "an interface that is no port"
        );
        assert!(nowhere(&view, "10.4.0.0/16"));
        assert!(nowhere(&view, "10.1.255.255/32"), "directed broadcast");
        assert_eq!(find(&view, "fe80::/64"), None);
        let neighbor = view
            .neighbors
            .iter()
            .find(|one| one.address.is_ipv4())
            .unwrap();
        assert_eq!(
            (neighbor.port, neighbor.mac),
            (PortIndex(0), [2, 0, 0, 0, 0, 2])
        );
        let wan = view.links[0].as_ref().unwrap();
        assert!(wan.up && wan.mtu == 1500 && wan.mac != [0; 6], "{wan:?}");
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(
            wan.addresses
                .iter()
                .any(|one| one.address == address && one.prefix_length == 24)
        );
        for local in [
            "192.0.2.1",
            "10.1.0.1",
            "172.16.0.1",
            "127.0.0.1",
            "2001:db8:2::1",
        ] {
            assert!(
                view.local_addresses.contains(&local.parse().unwrap()),
                "{local}"
            );
        }
    });
}

/// A command, the prefix to look at afterwards, and where it then leads: hops as in [`hops`],
/// `nowhere`, or `none` for no route.
const STEPS: &[(&str, &str, &str)] = &[
    (
        "route add 10.2.0.0/16 via 192.0.2.2",
        "10.2.0.0/16",
        "0 192.0.2.2 1",
    ),
    (
        "route replace 10.2.0.0/16 nexthop via 192.0.2.2 nexthop via 192.0.2.3 weight 3",
        "10.2.0.0/16",
        "0 192.0.2.2 1, 0 192.0.2.3 3",
    ),
    (
        "route replace unreachable 10.2.0.0/16",
        "10.2.0.0/16",
        "nowhere",
    ),
    ("route add prohibit 10.2.3.0/24", "10.2.3.0/24", "nowhere"),
    (
        "route replace 10.2.0.0/16 via inet6 2001:db8:1::2 dev wan0",
        "10.2.0.0/16",
        "0 2001:db8:1::2 1",
    ),
    (
        "route add 10.2.0.0/16 via 192.0.2.2 metric 5",
        "10.2.0.0/16",
        "0 2001:db8:1::2 1",
    ),
    (
        "route del 10.2.0.0/16 metric 0",
        "10.2.0.0/16",
        "0 192.0.2.2 1",
    ),
    (
        "route append 10.2.0.0/16 via 192.0.2.3 metric 5",
        "10.2.0.0/16",
        "0 192.0.2.2 1",
    ),
    (
        "route del 10.2.0.0/16 via 192.0.2.2",
        "10.2.0.0/16",
        "0 192.0.2.3 1",
    ),
    ("route del 10.2.0.0/16", "10.2.0.0/16", "none"),
    ("route add 10.5.0.0/16 dev lan0", "10.5.0.0/16", "1 - 1"),
    (
        "nexthop add id 7 via 192.0.2.2 dev wan0",
        "10.5.0.0/16",
        "1 - 1",
    ),
    (
        "route add 10.6.0.0/16 nhid 7",
        "10.6.0.0/16",
        "0 192.0.2.2 1",
    ),
    (
        "nexthop replace id 7 via 192.0.2.3 dev wan0",
        "10.6.0.0/16",
        "0 192.0.2.3 1",
    ),
    ("nexthop del id 7", "10.6.0.0/16", "none"),
    (
        "route add 2001:db8:9::/48 via 2001:db8:1::2",
        "2001:db8:9::/48",
        "0 2001:db8:1::2 1",
    ),
    (
        "route append 2001:db8:9::/48 via 2001:db8:2::2",
        "2001:db8:9::/48",
        "0 2001:db8:1::2 1, 1 2001:db8:2::2 1",
    ),
    (
        "route del 2001:db8:9::/48 via 2001:db8:1::2",
        "2001:db8:9::/48",
        "1 2001:db8:2::2 1",
    ),
    (
        "route replace blackhole 2001:db8:9::/48",
        "2001:db8:9::/48",
        "nowhere",
    ),
    (
        "route add default via 192.0.2.2",
        "0.0.0.0/0",
        "0 192.0.2.2 1",
    ),
    ("link set wan0 down", "0.0.0.0/0", "none"),
];

/// Hops from their port, gateway (`-`: on the link) and weight.
fn hops(text: &str) -> Vec<Hop> {
    let read = |hop_text: &str| {
        let words: Vec<&str> = hop_text.split(' ').collect();
        let via = Some(words[1]).filter(|via| *via != "-");
        hop(words[0].parse().unwrap(), via, words[2].parse().unwrap())
    };
    text.split(", ").map(read).collect()
}

#[test]
fn routes_are_followed_within_a_tenth_of_a_second() {
    if skip("routes_are_followed_within_a_tenth_of_a_second") {
        return;
    }
    let [gateway, _peer] = gateway();
    gateway.block_on(async || {
        let mut mirror = mirror().await;
        for (command, prefix, wanted) in STEPS {
            gateway.ip(command);
            let took = until(&mut mirror, command, |view| match *wanted {
                "none" => find(view, prefix).is_none(),
                "nowhere" => nowhere(view, prefix),
                wanted => leads(view, prefix, &hops(wanted)),
            });
            let took = took.await;
            assert!(took < Duration::from_millis(100), "{command}: {took:?}");
        }
        assert!(mirror.notices().is_empty());
        // Nothing is told when nothing changes.
        let quiet = Duration::from_millis(200);
        while tokio::time::timeout(quiet, mirror.changed()).await.is_ok() {}
        gateway.ip("route add 10.99.0.0/16 dev lan0 table 99");
        assert!(tokio::time::timeout(quiet, mirror.changed()).await.is_err());
    });
}

#[test]
fn links_addresses_and_neighbors_are_followed() {
    if skip("links_addresses_and_neighbors_are_followed") {
        return;
    }
    let [gateway, peer] = gateway();
    let wan = |view: &View| view.links[0].clone();
    let mac = [2, 0, 0, 0, 0, 9];
    gateway.block_on(async || {
        let mut mirror = mirror().await;
        let neighbor = |view: &View, mac: Option<[u8; 6]>| {
            let address: IpAddr = "192.0.2.9".parse().unwrap();
            view.neighbors
                .iter()
                .find(|one| one.address == address)
                .map(|one| one.mac)
                == mac
        };
        let mut step = async |command: &str, wanted: &dyn Fn(&View) -> bool| {
            gateway.ip(command);
            let took = until(&mut mirror, command, wanted).await;
            assert!(took < Duration::from_millis(100), "{command}: {took:?}");
        };
        step("link set wan0 mtu 1400", &|view| {
            wan(view).unwrap().mtu == 1400
        })
        .await;
        step("link set wan0 address 02:00:00:00:00:07", &|view| {
            wan(view).unwrap().mac == [2, 0, 0, 0, 0, 7]
        })
        .await;
        step("addr add 192.0.2.77/24 dev wan0", &|view| {
            view.local_addresses
                .contains(&"192.0.2.77".parse().unwrap())
        })
        .await;
        step("addr del 192.0.2.77/24 dev wan0", &|view| {
            !view
                .local_addresses
                .contains(&"192.0.2.77".parse().unwrap())
        })
        .await;
        step(
            "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev wan0",
            &|view| neighbor(view, Some(mac)),
        )
        .await;
        step(
            "neigh replace 192.0.2.9 lladdr 02:00:00:00:00:08 dev wan0",
            &|view| neighbor(view, Some([2, 0, 0, 0, 0, 8])),
        )
        .await;
        step("neigh del 192.0.2.9 dev wan0", &|view| neighbor(view, None)).await;
        step("link set wan0 down", &|view| !wan(view).unwrap().up).await;
        step("link set wan0 up", &|view| wan(view).unwrap().up).await;
        step("link del wan0", &|view| wan(view).is_none()).await;
        join(&gateway, "wan0", &peer, "wan0");
        gateway.ip("addr add 192.0.2.1/24 dev wan0");
        let back = |view: &View| leads(view, "192.0.2.0/24", &[hop(0, None, 1)]);
        until(&mut mirror, "a new interface of the name", back).await;
    });
}

#[test]
fn ten_thousand_routes_in_a_burst() {
    if skip("ten_thousand_routes_in_a_burst") {
        return;
    }
    let [gateway, _peer] = gateway();
    let gateway = Arc::new(gateway);
    let mut add = String::new();
    let mut delete = String::new();
    for route in 0_u32..10_000 {
        let prefix = format!("100.{}.{}.0/24", route / 256, route % 256);
        add.push_str(&format!("route add {prefix} via 192.0.2.2\n"));
        delete.push_str(&format!("route del {prefix}\n"));
    }
    gateway.block_on(async || {
        let mut mirror = mirror().await;
        let before = mirror.view().routes.len();
        for (commands, routes) in [(add, before + 10_000), (delete, before)] {
            let namespace = Arc::clone(&gateway);
            let batch = std::thread::spawn(move || {
                namespace.ip_batch(&commands);
                Instant::now()
            });
            let what = format!("{routes} routes");
            until(&mut mirror, &what, |view| view.routes.len() == routes).await;
            let told = Instant::now();
            let done = batch.join().unwrap();
            let took = told.saturating_duration_since(done);
            println!("{routes} routes: {took:?} after the last one");
            assert!(took < Duration::from_millis(100), "{took:?}");
        }
    });
}
