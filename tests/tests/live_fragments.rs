//! Goal: ESP that a router cut on its way is put together by the peer's gateway, on whatever
//! queues and workers the pieces arrive. Method: the kernel of a namespace between the gateways
//! forwards with a smaller MTU.

use anyhow::{Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{drop_count, live};
use xipsec_tests::netns::Namespace;
use xipsec_tests::topology::{Lab, Plan};

/// Turns the tap between the gateways into a router that answers ARP for both and lets packets of
/// `mtu` bytes through.
fn route(wire: &Namespace, mtu: u32) -> Result<()> {
    wire.sysctl("net.ipv4.ip_forward", "1")?;
    for (interface, address) in [("wa", LEFT.wan[0]), ("wb", RIGHT.wan[0])] {
        wire.ip(&format!("link set {interface} nomaster"))?;
        wire.ip(&format!("addr add 192.0.2.254/32 dev {interface}"))?;
        wire.ip(&format!(
            "route add {address}/32 dev {interface} mtu lock {mtu}"
        ))?;
        for (key, value) in [
            ("conf/X/proxy_arp", "1"),
            ("conf/X/rp_filter", "0"),
            ("neigh/X/proxy_delay", "0"),
        ] {
            let key = key.replace('X', interface);
            wire.sysctl(&format!("net/ipv4/{key}"), value)?;
        }
    }
    Ok(())
}

//= test T22
#[test]
fn what_a_router_cut_is_put_together() {
    live("what_a_router_cut_is_put_together", || {
        for inner in [1300, 1000] {
            let mut plan = Plan {
                tapped: true,
                queues: 2,
                ..Plan::default()
            };
            plan.sa.push("dont_fragment = \"clear\"".to_owned());
            let mut lab = Lab::connected(&plan)?;
            let Some(wire) = &lab.wire else {
                anyhow::bail!("no tap");
            };
            route(wire, 600)?;
            // Neighbours as the bridge had them are answered for by the router from now on.
            for gate in [&lab.gate_a, &lab.gate_b] {
                gate.ip("neigh flush dev wan0")?;
            }
            lab.wait_connected(Family::V4)?;
            let before = lab.right.stats()?;
            let address = RIGHT.host[0];
            let ping = format!("ping -n -q -c 100 -i 0.01 -s {inner} {address}");
            lab.explain(lab.host_a.run(&ping))?;
            for gateway in [&lab.left, &lab.right] {
                let stats = gateway.stats()?;
                let merged = stats["accounting"]["merged"].as_u64().unwrap_or(0);
                // 1328 bytes and what ESP adds make three fragments of at most 600, 1028 two.
                let least = if inner == 1300 { 200 } else { 100 };
                ensure!(merged >= least, "{merged} merged: {}", lab.state());
                ensure!(stats["accounting"]["held"] == 0, "{}", lab.state());
            }
            let after = lab.right.stats()?;
            let lost = drop_count(&after, "fragment")? - drop_count(&before, "fragment")?;
            ensure!(lost == 0, "{}", lab.state());
            lab.check_accounting()?;
            lab.left.stop()?;
            lab.right.stop()?;
        }
        Ok(())
    });
}
