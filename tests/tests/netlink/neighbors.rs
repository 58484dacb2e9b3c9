//! The kernel keeps the neighbours that the gateway asks for, with no traffic of its own.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use xipsec::netlink::{Kernel, Mirror, NeighborKeeper, NextHop};
use xipsec::route::{Mac, PortIndex};

use super::world::{Namespace, join, skip};

fn pair() -> [Namespace; 2] {
    let [gateway, peer] = [Namespace::new(), Namespace::new()];
    join(&gateway, "wan0", &peer, "eth0");
    gateway.ip("addr add 192.0.2.1/24 dev wan0");
    gateway.ip("addr add 2001:db8::1/64 dev wan0 nodad");
    peer.ip("addr add 192.0.2.2/24 dev eth0");
    peer.ip("addr add 2001:db8::2/64 dev eth0 nodad");
    // Seconds of a neighbour's life, shortened so that the test sees several of them.
    for family in ["ipv4", "ipv6"] {
        let settings = ["base_reachable_time_ms=1000", "delay_first_probe_time=1"];
        for setting in settings.into_iter().chain(["interval_probe_time_ms=1000"]) {
            gateway.sysctl(&format!("net.{family}.neigh.wan0.{setting}"));
        }
    }
    [gateway, peer]
}

async fn mirror() -> Mirror {
    let ports = vec!["wan0".to_owned()];
    Mirror::new(Kernel::connect().unwrap(), ports, String::new())
        .await
        .unwrap()
}

const fn hop(address: IpAddr) -> NextHop {
    NextHop {
        port: PortIndex(0),
        address,
    }
}

fn mac(mirror: &Mirror, address: IpAddr) -> Option<Mac> {
    let view = mirror.view();
    view.neighbors
        .iter()
        .find(|one| one.address == address)
        .map(|one| one.mac)
}

/// Follows changes until a neighbour's MAC address is as wanted; how long it took.
async fn until(mirror: &mut Mirror, address: IpAddr, wanted: Option<Mac>) -> Duration {
    let start = Instant::now();
    while mac(mirror, address) != wanted {
        let patience = Duration::from_secs(20).saturating_sub(start.elapsed());
        let changed = tokio::time::timeout(patience, mirror.changed()).await;
        changed.expect("within 20 seconds").unwrap();
    }
    start.elapsed()
}

#[test]
fn neighbors_are_resolved_kept_fresh_followed_and_released() {
    if skip("neighbors_are_resolved_kept_fresh_followed_and_released") {
        return;
    }
    let [gateway, peer] = pair();
    let own = |namespace: &Namespace, device: &str| -> Mac {
        let link = namespace.ip(&format!("-br link show {device}"));
        let text = link.split_whitespace().nth(2).unwrap();
        let bytes = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap());
        bytes.collect::<Vec<u8>>().try_into().unwrap()
    };
    let first = own(&peer, "eth0");
    let second = [2, 0, 0, 0, 0, 0x22];
    let addresses: [IpAddr; 2] = ["192.0.2.2", "2001:db8::2"].map(|text| text.parse().unwrap());
    gateway.block_on(async || {
        let mut mirror = mirror().await;
        let mut keeper = NeighborKeeper::new(Kernel::connect().unwrap())
            .await
            .unwrap();
        keeper.keep(addresses.map(hop), &mirror).await.unwrap();
        for address in addresses {
            let took = until(&mut mirror, address, Some(first)).await;
            println!("{address} resolved within {took:?}");
            assert!(took < Duration::from_secs(1));
        }
        // A neighbour's life is 0.5 to 1.5 s here; nobody sends, and yet it never ends.
        let end = Instant::now() + Duration::from_secs(6);
        let mut probed = false;
        while Instant::now() < end {
            let listed = gateway.ip("neigh show dev wan0");
            assert!(
                !listed.contains("FAILED") && listed.matches("managed").count() == 2,
                "{listed}"
            );
            probed |= listed.contains("PROBE") || listed.contains("DELAY");
            drop(tokio::time::timeout(Duration::from_millis(20), mirror.changed()).await);
            for address in addresses {
                assert_eq!(mac(&mirror, address), Some(first));
            }
        }
        assert!(probed, "the kernel probes by itself");
        // The peer changes its MAC address without a word.
        peer.ip("link set eth0 address 02:00:00:00:00:22");
        for address in addresses {
            let took = until(&mut mirror, address, Some(second)).await;
            println!("{address} moved, followed within {took:?}");
        }
        // A link that went down forgets; a refresh asks again.
        gateway.ip("link set wan0 down");
        until(&mut mirror, addresses[0], None).await;
        gateway.ip("link set wan0 up");
        while !mirror.view().links[0].as_ref().unwrap().up {
            mirror.changed().await.unwrap();
        }
        keeper.refresh(&mirror).await.unwrap();
        until(&mut mirror, addresses[0], Some(second)).await;
        // No longer wanted, no longer there.
        keeper.keep([hop(addresses[0])], &mirror).await.unwrap();
        until(&mut mirror, addresses[1], None).await;
        keeper.release().await.unwrap();
        until(&mut mirror, addresses[0], None).await;
    });
}

#[test]
fn what_is_entered_by_hand_stays_and_what_a_crash_left_goes() {
    if skip("what_is_entered_by_hand_stays_and_what_a_crash_left_goes") {
        return;
    }
    let [gateway, _peer] = pair();
    gateway.ip("neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev wan0");
    let by_hand: IpAddr = "192.0.2.7".parse().unwrap();
    let left: IpAddr = "192.0.2.2".parse().unwrap();
    gateway.block_on(async || {
        let mut mirror = mirror().await;
        let mut keeper = NeighborKeeper::new(Kernel::connect().unwrap())
            .await
            .unwrap();
        keeper
            .keep([hop(by_hand), hop(left)], &mirror)
            .await
            .unwrap();
        assert!(
            gateway
                .ip("neigh show 192.0.2.7 dev wan0")
                .contains("PERMANENT")
        );
        assert!(
            gateway
                .ip("neigh show 192.0.2.2 dev wan0")
                .contains("managed")
        );
        drop(keeper); // A crash.
        let mut keeper = NeighborKeeper::new(Kernel::connect().unwrap())
            .await
            .unwrap();
        assert_eq!(gateway.ip("neigh show 192.0.2.2 dev wan0"), "");
        keeper.release().await.unwrap();
        assert!(
            gateway
                .ip("neigh show 192.0.2.7 dev wan0")
                .contains("PERMANENT")
        );
    });
}
