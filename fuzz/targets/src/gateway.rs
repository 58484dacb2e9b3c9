//! Two gateways with the same SAs, built from configuration like any other.

use std::cell::Cell;
use std::net::IpAddr;
use std::path::Path;

use ipsec::crypto::suite::Protocol;
use ipsec::packet::{Fragment, Version, parse};
use ipsec::time::Time;
use xipsec::config::{self, Config, Purpose};
use xipsec::observe::stats::Document;
use xipsec::offline::replay::feed::Feed;

use crate::packets;
use crate::pairs::{IN, OUT, PAIRS, Pair};

/// Places of the ports in the configuration.
pub(crate) const WAN: usize = 0;
pub(crate) const LAN: usize = 1;

/// MAC addresses of both gateways' ports.
pub(crate) const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 1, 1]];

/// Frames of a port, and room of each: enough for a burst and its fragments.
const FRAMES: usize = 128;
const FRAME_SIZE: usize = 4096;

const REST: &str = r#"
[[policy]]
name = "bypass-out"
direction = "out"
action = "bypass"
local = "10.9.0.0/16"
remote = "10.10.0.0/16"
protocol = "udp"
remote_port = "1000-2000"
priority = 10
[[policy]]
name = "bypass-in"
direction = "in"
action = "bypass"
local = "10.9.0.0/16"
remote = "10.10.0.0/16"
protocol = "udp"
remote_port = "1000-2000"
priority = 10
[[policy]]
name = "discard-out"
direction = "out"
action = "discard"
local = "any"
remote = "10.2.99.0/24"
protocol = "icmp"
icmp_type = "8-13"
priority = 5
[[route]]
prefix = "10.0.0.0/8"
port = "wan0"
via = "192.0.2.2"
[[route]]
prefix = "2001:db8::/32"
port = "wan0"
via = "2001:db8::2"
[[neighbor]]
port = "wan0"
address = "192.0.2.2"
mac = "02:00:00:00:00:01"
[[neighbor]]
port = "wan0"
address = "2001:db8::2"
mac = "02:00:00:00:00:01"
"#;

/// The near gateway's file; the far one's has each address of near and far exchanged.
fn file(far: bool) -> String {
    let mut text = String::from("[dataplane]\nallow_legacy = true\nstate_dir = \"unused\"\n");
    let networks = |family: &str, odd: bool| -> String {
        let all = (0..PAIRS.len()).map(|pair| match (family, 2 * pair + usize::from(!odd) + 1) {
            ("4", number) => format!("\"10.{number}.0.1/16\""),
            (_, number) => format!("\"2001:db8:{number:x}::1/48\""),
        });
        all.collect::<Vec<_>>().join(", ")
    };
    let outer = if far { 2 } else { 1 };
    text += &format!(
        "[[port]]\nname = \"wan0\"\nside = \"unprotected\"\nmac = \"02:00:00:00:00:01\"\n\
         mtu = 1500\naddress = [\"192.0.2.{outer}/24\", \"2001:db8::{outer}/64\"]\n\
         [[port]]\nname = \"lan0\"\nside = \"protected\"\nmac = \"02:00:00:00:01:01\"\nmtu = 1500\n\
         address = [{}, {}]\n",
        networks("4", !far),
        networks("6", !far),
    );
    for (number, pair) in PAIRS.iter().enumerate() {
        for (first, out) in [(OUT, !far), (IN, far)] {
            text += &associated(number, pair, first, out);
        }
        // Of the hosts behind; those of IPv6 are the gateways themselves.
        let net = 2 * number + usize::from(far) + 1;
        text += &format!(
            "[[neighbor]]\nport = \"lan0\"\naddress = \"10.{net}.0.2\"\n\
             mac = \"02:00:00:00:01:02\"\n"
        );
    }
    let rest = if far {
        REST.replace("192.0.2.2", "192.0.2.1")
            .replace("2001:db8::2", "2001:db8::1")
    } else {
        REST.to_owned()
    };
    text + &rest
}

/// The SAs of a pair in one direction, with their policy.
fn associated(number: usize, pair: &Pair, first: u32, out: bool) -> String {
    let forth = first == OUT;
    let direction = if out { "out" } else { "in" };
    let (mut text, mut names) = (String::new(), Vec::new());
    for (depth, layer) in pair.layers.iter().enumerate() {
        let spi = Pair::spi(first, number, depth);
        let mut ends = pair.ends(number, depth).map(|end| address(&end));
        if !forth {
            ends.reverse();
        }
        let [source, destination] = ends;
        let name = format!("{direction}-{number}-{depth}");
        let mode = if layer.tunnel { "tunnel" } else { "transport" };
        let protocol = match layer.protocol {
            Protocol::Esp => "esp",
            Protocol::Ah => "ah",
        };
        text += &format!(
            "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\n\
             protocol = \"{protocol}\"\nmode = \"{mode}\"\nspi = {spi}\n\
             source = \"{source}\"\ndestination = \"{destination}\"\n{}{}",
            layer.algorithms(spi),
            pair.more(),
        );
        names.push(format!("\"{name}\""));
    }
    let network = |number: usize| match (pair.own, pair.v6) {
        (true, _) => format!("192.0.2.{}", 2 - number % 2),
        (false, true) => format!("2001:db8:{number:x}::/48"),
        (false, false) => format!("10.{number}.0.0/16"),
    };
    let (near, far) = (network(2 * number + 1), network(2 * number + 2));
    let (local, remote) = if forth == out {
        (near, far)
    } else {
        (far, near)
    };
    let selector = match (number, pair.own) {
        (4, _) => {
            let end = if forth == out { "local" } else { "remote" };
            format!("protocol = \"udp\"\n{end}_port = [5000, \"6000-7000\"]\n")
        }
        (_, true) => "protocol = \"tcp\"\n".to_owned(),
        _ => String::new(),
    };
    text + &format!(
        "[[policy]]\nname = \"{direction}-{number}\"\ndirection = \"{direction}\"\n\
         action = \"protect\"\nlocal = \"{local}\"\nremote = \"{remote}\"\npriority = 100\n\
         {selector}sa = [{}]\n",
        names.join(", "),
    )
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => bytes.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).unwrap().into(),
    }
}

fn config(far: bool) -> Config {
    let bytes = file(far).into_bytes().into();
    config::parse(Path::new("fuzz.toml"), bytes, Purpose::Replay)
        .unwrap_or_else(|errors| panic!("the fuzzing's own configuration: {errors:?}"))
}

/// Nothing here is ever full, reserved or of another worker.
const IMPOSSIBLE: [&str; 5] = [
    "tx_full",
    "no_frame",
    "handoff_full",
    "host_full",
    "no_reservation",
];

thread_local! {
    /// Gateways of earlier inputs, near and far: building one takes longer than most inputs do.
    static IDLE: [Cell<Option<Feed>>; 2] = const { [const { Cell::new(None) }; 2] };
}

/// A gateway and what it was offered.
pub(crate) struct Gateway {
    feed: Feed,
    far: bool,
    offered: u64,
    from_host: u64,
}

impl Gateway {
    pub(crate) fn near() -> Self {
        Self::new(false)
    }

    pub(crate) fn far() -> Self {
        Self::new(true)
    }

    fn new(far: bool) -> Self {
        let idle = IDLE.with(|idle| idle[usize::from(far)].take());
        let feed = idle.map_or_else(
            || Feed::new(config(far), FRAMES, FRAME_SIZE).unwrap(),
            |mut feed| {
                feed.restart().unwrap();
                feed
            },
        );
        Self {
            feed,
            far,
            offered: 0,
            from_host: 0,
        }
    }

    /// A burst on a port; what each port sent because of it.
    pub(crate) fn arrive(
        &mut self,
        port: usize,
        frames: &[Vec<u8>],
        now: Time,
    ) -> [Vec<Vec<u8>>; 2] {
        self.offered += self.feed.arrive(port, frames, now) as u64;
        self.sent()
    }

    /// A packet of the machine itself; what each port sent because of it.
    pub(crate) fn host_sends(&mut self, frame: &[u8], now: Time) -> [Vec<Vec<u8>>; 2] {
        self.from_host += 1;
        self.feed.host_sends(frame, now);
        self.sent()
    }

    fn sent(&mut self) -> [Vec<Vec<u8>>; 2] {
        let sent = [WAN, LAN].map(|port| {
            let frames = std::iter::from_fn(|| self.feed.sent(port));
            frames.collect::<Vec<_>>()
        });
        for frame in sent.iter().flatten().chain(&self.feed.delivered()) {
            assert!(frame.len() >= 14, "a frame without a header");
        }
        for frame in sent.iter().flatten() {
            let packet = parse(&frame[14..]).unwrap_or_else(|why| panic!("sent: {why:?}"));
            assert_eq!(usize::from(packet.length) + 14, frame.len());
        }
        sent
    }

    /// Every packet ended once, and every frame lies where it belongs. The counters.
    pub(crate) fn settle(mut self) -> Document {
        let document = self.feed.document();
        let it = document.accounting;
        assert_eq!((it.rx, it.from_host), (self.offered, self.from_host));
        let ended = it.tx + it.to_host + it.dropped + it.consumed + it.merged + it.held;
        assert_eq!(it.rx + it.from_host + it.created, ended, "{it:?}");
        let drops = document.drops.values().map(|count| count.as_u64().unwrap());
        assert_eq!(drops.sum::<u64>(), it.dropped);
        for reason in IMPOSSIBLE {
            assert_eq!(document.drops[reason], 0, "{reason}");
        }
        assert!(self.feed.every_frame_is_home());
        IDLE.with(|idle| idle[usize::from(self.far)].set(Some(self.feed)));
        document
    }
}

/// Whether a frame is one that the bypass policies let through in the clear; `out`: towards the
/// unprotected side. Of a later fragment the addresses tell.
pub(crate) fn is_bypassed(frame: &[u8], out: bool) -> bool {
    let ip = &frame[14..];
    let packet = parse(ip).unwrap();
    if packet.version != Version::V4 || packet.protocol != 17 {
        return false;
    }
    let (local, remote) = if out { (12, 16) } else { (16, 12) };
    let upper = usize::from(packet.upper_offset) + if out { 2 } else { 0 };
    let port = ip
        .get(upper..upper + 2)
        .map(|port| u16::from_be_bytes([port[0], port[1]]));
    let port =
        packet.fragment == Fragment::Later || port.is_some_and(|it| (1000..=2000).contains(&it));
    port && ip[local..local + 2] == [10, 9] && ip[remote..remote + 2] == [10, 10]
}

/// The frame of a packet of a pair's SAs as the near gateway receives it.
pub(crate) fn wan_frame(pair: &Pair, mut packet: Vec<u8>, traffic_class: u8) -> Vec<u8> {
    if pair.encapsulated() {
        let esp = packet.split_off(20);
        let mut datagram = packets::udp(4500, 4500, 8 + esp.len() as u16);
        datagram[8..].copy_from_slice(&esp);
        packet.extend(datagram);
        packet[9] = 17;
    }
    if pair.v6 {
        packet[0] |= traffic_class >> 4;
        packet[1] |= traffic_class << 4;
    } else {
        packet[1] = traffic_class;
    }
    packets::finish(&mut packet);
    packets::frame(MACS[WAN], &packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_left(document: &Document, number: usize) {
        let drops = document.drops.iter().filter(|(_, count)| **count != 0);
        let drops: Vec<_> = drops.collect();
        let it = document.accounting;
        assert_eq!(it.tx + it.to_host, 1, "{number}: {drops:?} {it:?}");
    }

    /// Packets that the gateway's own SAs of each pair have opened.
    fn opened(document: &Document, number: usize) -> Vec<u64> {
        let prefix = format!("in-{number}-");
        let sas = document.sas.iter();
        let own = sas.filter(|sa| sa.name.starts_with(&prefix));
        own.map(|sa| sa.packets).collect()
    }

    #[test]
    fn what_is_sealed_for_a_pair_is_opened_and_accepted() {
        for (number, pair) in PAIRS.iter().enumerate() {
            let mut gateway = Gateway::near();
            let text = pair.sample_text(number);
            let frame = wan_frame(pair, pair.sealed(number, 1, &text), 0);
            gateway.arrive(WAN, &[frame], Time(0));
            let document = gateway.settle();
            assert_eq!(opened(&document, number), vec![1; pair.layers.len()]);
            one_left(&document, number);
        }
    }

    #[test]
    fn what_one_gateway_seals_the_other_opens() {
        for (number, pair) in PAIRS.iter().enumerate() {
            let (mut near, mut far) = (Gateway::near(), Gateway::far());
            let packet = pair.sample(number, true, 40);
            let frame = packets::frame(MACS[LAN], &packet);
            let [wan, _] = if pair.own {
                near.host_sends(&frame, Time(0))
            } else {
                near.arrive(LAN, &[frame], Time(0))
            };
            one_left(&near.settle(), number);
            far.arrive(WAN, &wan, Time(0));
            let document = far.settle();
            assert_eq!(opened(&document, number), vec![1; pair.layers.len()]);
            one_left(&document, number);
        }
    }

    #[test]
    fn a_gateway_that_begins_anew_is_like_a_new_one() {
        let bursts = || {
            PAIRS.iter().enumerate().map(|(number, pair)| {
                let text = pair.sample_text(number);
                let wan = |sequence| wan_frame(pair, pair.sealed(number, sequence, &text), 0);
                let lan = packets::frame(MACS[LAN], &pair.sample(number, true, 2500));
                ([wan(1), wan(5), wan(1)], lan)
            })
        };
        let run = || {
            let mut gateway = Gateway::near();
            let mut sent = Vec::new();
            for (wan, lan) in bursts() {
                sent.extend(gateway.arrive(WAN, &wan, Time(1)));
                sent.extend(gateway.host_sends(&lan, Time(2)));
                sent.extend(gateway.arrive(LAN, &[lan], Time(3)));
            }
            let document = serde_json::to_string(&gateway.settle()).unwrap();
            (sent, document)
        };
        IDLE.with(|idle| idle.iter().for_each(|idle| idle.set(None)));
        let new = run();
        assert!(!new.0.concat().is_empty());
        for _ in 0..2 {
            assert!(IDLE.with(|idle| {
                let feed = idle[0].take();
                let there = feed.is_some();
                idle[0].set(feed);
                there
            }));
            assert_eq!(run(), new);
        }
    }
}
