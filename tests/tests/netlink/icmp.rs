//! The kernel of a router on the way says that our ESP is too big, and the raw sockets hear it.

use std::time::Duration;

use ipsec::packet::Version;
use ipsec::sa::path_mtu::{Complaint, Report};
use xipsec::netlink::icmp::{IcmpError, IcmpErrors};

use super::world::{Namespace, join, skip};

/// An ESP packet of 1450 bytes with SPI 0x1001 and number 7, in both families.
const SEND: &str = "
from scapy.all import IP, IPv6, Raw, conf, send
conf.verb = 0
body = Raw(bytes([0, 0, 0x10, 1, 0, 0, 0, 7]) + bytes(1450 - 20 - 8))
send(IP(src='192.0.2.1', dst='198.51.100.2', proto=50, flags='DF') / body)
body = Raw(bytes([0, 0, 0x10, 1, 0, 0, 0, 7]) + bytes(1450 - 40 - 8))
send(IPv6(src='2001:db8::1', dst='2001:db8:9::2', nh=50) / body)
";

#[test]
fn a_router_that_cannot_carry_our_esp_is_heard() {
    if skip("a_router_that_cannot_carry_our_esp_is_heard") {
        return;
    }
    let [gateway, router, far] = [Namespace::new(), Namespace::new(), Namespace::new()];
    join(&gateway, "wan0", &router, "near");
    join(&router, "away", &far, "eth0");
    router.sysctl("net.ipv4.ip_forward=1");
    router.sysctl("net.ipv6.conf.all.forwarding=1");
    gateway.ip("addr add 192.0.2.1/24 dev wan0");
    gateway.ip("addr add 2001:db8::1/64 dev wan0 nodad");
    router.ip("addr add 192.0.2.9/24 dev near");
    router.ip("addr add 2001:db8::9/64 dev near nodad");
    router.ip("addr add 198.51.100.1/24 dev away");
    router.ip("addr add 2001:db8:9::1/64 dev away nodad");
    router.ip("link set away mtu 1400");
    far.ip("addr add 198.51.100.2/24 dev eth0");
    far.ip("addr add 2001:db8:9::2/64 dev eth0 nodad");
    gateway.ip("route add default via 192.0.2.9");
    gateway.ip("route add default via 2001:db8::9");
    let heard = gateway.block_on(async || {
        let mut errors = IcmpErrors::new().unwrap();
        let sent = gateway
            .command("/usr/bin/python3")
            .args(["-c", SEND])
            .output()
            .unwrap();
        assert!(
            sent.status.success(),
            "{}",
            String::from_utf8_lossy(&sent.stderr)
        );
        let mut heard: Vec<IcmpError> = Vec::new();
        while heard.len() < 2 {
            let next = tokio::time::timeout(Duration::from_secs(5), errors.receive());
            heard.extend(next.await.expect("both errors within seconds").unwrap());
        }
        heard
    });
    assert_eq!(heard.len(), 2, "{heard:?}");
    for (version, from, error) in [
        (
            Version::V4,
            "192.0.2.9",
            Report::of_v4 as fn(&[u8]) -> Option<Report>,
        ),
        (Version::V6, "2001:db8::9", Report::of_v6),
    ] {
        let found = heard.iter().find(|heard| heard.version == version).unwrap();
        assert_eq!(found.from.to_string(), from);
        let report = error(&found.bytes).unwrap();
        assert_eq!(report.complaint, Complaint::TooBig(1400));
        assert_eq!(
            (report.key.spi, report.sequence, report.length),
            (0x1001, 7, 1450)
        );
        assert_eq!(report.key.version, version);
    }
}
