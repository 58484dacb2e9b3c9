//! The machine's own traffic finds the host port, and only what policy protects does.

use std::net::IpAddr;

use xipsec::netlink::{HostRoute, HostRoutes, Kernel, Mirror};

use super::world::{Namespace, join, skip};

/// A gateway with an outside port, an inside address on loopback, and a TUN.
fn gateway() -> Option<[Namespace; 2]> {
    let [gateway, peer] = [Namespace::new(), Namespace::new()];
    join(&gateway, "wan0", &peer, "eth0");
    gateway.ip("addr add 192.0.2.1/24 dev wan0");
    gateway.ip("addr add 2001:db8::1/64 dev wan0 nodad");
    gateway.ip("addr add 10.1.0.1/16 dev lo");
    gateway.ip("addr add 2001:db8:1::1/64 dev lo nodad");
    gateway.ip("route add default via 192.0.2.2");
    gateway.ip("route add default via 2001:db8::2");
    if !gateway.try_run("ip tuntap add xipsec0 mode tun") {
        println!("SKIPPED host_routes: no TUN here");
        return None;
    }
    gateway.ip("link set xipsec0 up");
    Some([gateway, peer])
}

fn route(remote: &str, prefix_length: u8, source: &str) -> HostRoute {
    let [remote, source] = [remote, source].map(|text| text.parse().unwrap());
    HostRoute {
        remote,
        prefix_length,
        source,
    }
}

fn routes() -> [HostRoute; 2] {
    [
        route("10.2.0.0", 16, "10.1.0.1"),
        route("2001:db8:2::", 48, "2001:db8:1::1"),
    ]
}

async fn index() -> u32 {
    let mirror = Mirror::new(Kernel::connect().unwrap(), Vec::new(), String::new()).await;
    mirror.unwrap().index_of("xipsec0").unwrap()
}

/// How the kernel would send: into the tunnel with this source, or not into it.
fn goes(gateway: &Namespace, to: &str, source: Option<&str>) {
    let way = gateway.ip(&format!("route get {to}"));
    match source {
        Some(source) => {
            assert!(way.contains("dev xipsec0"), "{to}: {way}");
            let sources = [format!("src {source} "), format!("from {source} ")];
            assert!(
                sources.iter().any(|source| way.contains(source)),
                "{to}: {way}"
            );
        }
        None => assert!(!way.contains("xipsec0"), "{to}: {way}"),
    }
}

#[test]
fn only_what_policy_protects_goes_into_the_host_port() {
    let test = "only_what_policy_protects_goes_into_the_host_port";
    if skip(test) {
        return;
    }
    let Some([gateway, _peer]) = gateway() else {
        return;
    };
    gateway.block_on(async || {
        let mut ours = HostRoutes::new(Kernel::connect().unwrap()).await.unwrap();
        let interface = index().await;
        ours.apply(interface, &routes(), &[]).await.unwrap();
        goes(&gateway, "10.2.0.5", Some("10.1.0.1"));
        goes(&gateway, "2001:db8:2::5", Some("2001:db8:1::1"));
        goes(&gateway, "10.2.0.5 from 10.1.0.1", Some("10.1.0.1"));
        goes(
            &gateway,
            "2001:db8:2::5 from 2001:db8:1::1",
            Some("2001:db8:1::1"),
        );
        // The peer's outside address, other sources, IKE, and what is forwarded.
        goes(&gateway, "192.0.2.2", None);
        goes(&gateway, "2001:db8::2", None);
        goes(&gateway, "10.2.0.5 from 192.0.2.1", None);
        goes(&gateway, "2001:db8:2::5 from 2001:db8::1", None);
        for port in ["sport 500", "dport 500", "sport 4500", "dport 4500"] {
            goes(&gateway, &format!("10.2.0.5 ipproto udp {port}"), None);
            goes(&gateway, &format!("2001:db8:2::5 ipproto udp {port}"), None);
        }
        goes(&gateway, "10.2.0.5 ipproto udp sport 501", Some("10.1.0.1"));
        gateway.sysctl("net.ipv4.ip_forward=1");
        gateway.sysctl("net.ipv4.conf.all.rp_filter=0");
        goes(&gateway, "10.2.0.5 from 192.0.2.9 iif wan0", None);
        // A policy for every destination leaves remote logins and the peer alone.
        let all = [
            route("0.0.0.0", 0, "10.1.0.1"),
            route("::", 0, "2001:db8:1::1"),
        ];
        let peers: [IpAddr; 2] = ["192.0.2.2", "2001:db8::2"].map(|text| text.parse().unwrap());
        ours.apply(interface, &all, &peers).await.unwrap();
        goes(&gateway, "198.51.100.9", Some("10.1.0.1"));
        goes(&gateway, "2001:db8:9::9", Some("2001:db8:1::1"));
        goes(&gateway, "198.51.100.9 from 192.0.2.1", None);
        goes(&gateway, "2001:db8:9::9 from 2001:db8::1", None);
        goes(&gateway, "192.0.2.2", None);
        goes(&gateway, "2001:db8::2", None);
        // Unless a policy names the peer itself.
        let named = [route("192.0.2.2", 32, "10.1.0.1")];
        ours.apply(interface, &named, &peers).await.unwrap();
        goes(&gateway, "192.0.2.2", Some("10.1.0.1"));
        goes(&gateway, "198.51.100.9", None);
        ours.remove().await.unwrap();
        goes(&gateway, "192.0.2.2", None);
    });
}

#[test]
fn everything_goes_at_a_stop_and_a_crash_is_taken_over() {
    let test = "everything_goes_at_a_stop_and_a_crash_is_taken_over";
    if skip(test) {
        return;
    }
    let Some([gateway, _peer]) = gateway() else {
        return;
    };
    let rules = || [gateway.ip("rule show"), gateway.ip("-6 rule show")];
    let table = || {
        let all = [
            gateway.ip("route show table all"),
            gateway.ip("-6 route show table all"),
        ];
        all.concat()
            .lines()
            .filter(|line| line.contains("table 4301"))
            .count()
    };
    let before = rules();
    gateway.block_on(async || {
        let mut ours = HostRoutes::new(Kernel::connect().unwrap()).await.unwrap();
        ours.apply(index().await, &routes(), &[]).await.unwrap();
        let installed = rules();
        assert!(
            installed.iter().all(|rules| rules.contains("4301:")),
            "{installed:?}"
        );
        drop(ours); // A crash, with the TUN left behind.
        let mut ours = HostRoutes::new(Kernel::connect().unwrap()).await.unwrap();
        ours.apply(index().await, &routes()[..1], &[])
            .await
            .unwrap();
        assert_eq!(rules(), [installed[0].clone(), before[1].clone()]);
        assert_eq!(table(), 1);
        drop(ours); // Another, and the TUN is gone and made anew.
        gateway.ip("link del xipsec0");
        gateway.ip("tuntap add xipsec0 mode tun");
        gateway.ip("link set xipsec0 up");
        let mut ours = HostRoutes::new(Kernel::connect().unwrap()).await.unwrap();
        ours.apply(index().await, &routes(), &[]).await.unwrap();
        assert_eq!((rules(), table()), (installed, 2));
        goes(&gateway, "10.2.0.5", Some("10.1.0.1"));
        // The same again changes nothing; the TUN is made anew while we run.
        ours.apply(index().await, &routes(), &[]).await.unwrap();
        gateway.ip("link del xipsec0");
        gateway.ip("tuntap add xipsec0 mode tun");
        gateway.ip("link set xipsec0 up");
        ours.apply(index().await, &routes(), &[]).await.unwrap();
        goes(&gateway, "10.2.0.5", Some("10.1.0.1"));
        ours.remove().await.unwrap();
        assert_eq!((rules(), table()), (before.clone(), 0));
    });
}
