//! Two gateways with the same SAs, built from configuration like any other.

use std::path::Path;

use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::crypto::{SealJob, Transform, seal};
use ipsec::packet::parse;
use ipsec::secret::Secret;
use ipsec::time::Time;
use xipsec::config::{self, Config, Purpose};
use xipsec::offline::replay::feed::Feed;

use crate::packets::{self, FAR, NEAR, v4};

/// Places of the ports in the configuration.
pub(crate) const WAN: usize = 0;
pub(crate) const LAN: usize = 1;

/// MAC addresses of both gateways' ports.
pub(crate) const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 1, 1]];

/// Frames of a port, and room of each: enough for a burst and its fragments.
const FRAMES: usize = 128;
const FRAME_SIZE: usize = 4096;

/// First SPI from near to far, and back.
pub(crate) const OUT: u32 = 0x1001;
pub(crate) const IN: u32 = 0x2001;

/// One SA pair: suite, whether its tunnel is IPv6, and what else its tables say.
pub(crate) struct Pair {
    encryption: Encryption,
    integrity: Option<Integrity>,
    pub(crate) v6: bool,
    more: &'static str,
}

/// The pairs; number n has SPIs `OUT + n` and `IN + n` and the networks 10.(2n+1) and 10.(2n+2),
/// or 2001:db8:(2n+1) and 2001:db8:(2n+2).
pub(crate) const PAIRS: [Pair; 6] = [
    Pair {
        encryption: Encryption::AesGcm { bits: 128, icv: 16 },
        integrity: None,
        v6: false,
        more: "",
    },
    Pair {
        encryption: Encryption::AesCbc { bits: 128 },
        integrity: Some(Integrity::Sha1_96),
        v6: false,
        more: "esn = true\ndont_fragment = \"clear\"\n",
    },
    Pair {
        encryption: Encryption::ChaCha20Poly1305,
        integrity: None,
        v6: true,
        more: "",
    },
    Pair {
        encryption: Encryption::AesGcm { bits: 192, icv: 8 },
        integrity: None,
        v6: false,
        more: "udp_encapsulation = { source_port = 4500, destination_port = 4500 }\n",
    },
    Pair {
        encryption: Encryption::Null,
        integrity: Some(Integrity::Sha256_128),
        v6: false,
        more: "replay_window = 0\ndscp = 46\n",
    },
    Pair {
        encryption: Encryption::AesCtr { bits: 256 },
        integrity: Some(Integrity::Aes128Xcbc96),
        v6: false,
        more: "lifetime = { hard_packets = 3 }\nhop_limit = 2\n",
    },
];

impl Pair {
    fn suite(&self) -> Suite {
        Suite {
            encryption: self.encryption,
            integrity: self.integrity,
        }
    }

    fn keys(&self, spi: u32) -> [Vec<u8>; 2] {
        let key = |length: usize, first: u32| (first as u8..).take(length).collect();
        let integrity = self.integrity.map_or(0, Integrity::key_length);
        let first = (spi & 7) * 2 + (spi >> 12);
        [
            key(self.encryption.key_length(), first),
            key(integrity, first + 100),
        ]
    }

    /// An ESP packet of the SA towards the near gateway, outer header included. `text` is brought
    /// to the cipher's alignment.
    pub(crate) fn sealed(&self, number: usize, sequence: u64, esn: bool, text: &[u8]) -> Vec<u8> {
        let (spi, suite) = (IN + number as u32, self.suite());
        let keys = self.keys(spi).map(Secret::new);
        let transform = Transform::new(suite, &keys[0], &keys[1]).unwrap();
        let mut text = text.to_vec();
        while text.len() < 2 || !text.len().is_multiple_of(suite.alignment()) {
            text.insert(text.len().saturating_sub(2), 0);
        }
        let (payload, trailer) = text.split_at(text.len() - 2);
        let mut packet = spi.to_be_bytes().to_vec();
        packet.extend(&sequence.to_be_bytes()[4..]);
        packet.extend(vec![sequence as u8; suite.iv_length()]);
        packet.resize(packet.len() + payload.len(), 0);
        packet.extend(trailer);
        packet.resize(packet.len() + suite.icv_length(), 0);
        seal(&mut [SealJob {
            transform: &transform,
            source: payload,
            destination: &mut packet,
            sequence,
            esn,
        }]);
        packet
    }

    /// Whether the pair's SAs have extended sequence numbers.
    pub(crate) fn esn(&self) -> bool {
        self.more.contains("esn = true")
    }
}

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
[[neighbor]]
port = "wan0"
address = "192.0.2.2"
mac = "02:00:00:00:00:01"
[[neighbor]]
port = "wan0"
address = "2001:db8::2"
mac = "02:00:00:00:00:01"
[[neighbor]]
port = "lan0"
address = "10.1.0.2"
mac = "02:00:00:00:01:02"
"#;

/// The near gateway's file; the far one's has each address of near and far exchanged.
fn file(far: bool) -> String {
    let mut text = String::from("[dataplane]\nallow_legacy = true\nstate_dir = \"unused\"\n");
    let networks = |family: &str, odd: bool| -> String {
        let all = (0..PAIRS.len()).map(|pair| match (family, 2 * pair + usize::from(!odd) + 1) {
            ("4", number) => format!("\"10.{number}.0.1/16\""),
            (_, number) => format!("\"2001:db8:{number}::1/48\""),
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
            text += &associated(number, pair, first + number as u32, first == OUT, out);
        }
    }
    let rest = if far {
        REST.replace("192.0.2.2", "192.0.2.1")
            .replace("2001:db8::2", "2001:db8::1")
            .replace("10.1.0.2", "10.2.0.2")
    } else {
        REST.to_owned()
    };
    text + &rest
}

/// One SA with its policy.
fn associated(number: usize, pair: &Pair, spi: u32, forth: bool, out: bool) -> String {
    let hex = |key: &[u8]| {
        key.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let ends = if pair.v6 {
        ["2001:db8::1", "2001:db8::2"]
    } else {
        ["192.0.2.1", "192.0.2.2"]
    };
    let [source, destination] = if forth { ends } else { [ends[1], ends[0]] };
    let network = |number: usize| {
        if pair.v6 {
            format!("2001:db8:{number}::/48")
        } else {
            format!("10.{number}.0.0/16")
        }
    };
    let (near, far) = (network(2 * number + 1), network(2 * number + 2));
    let (local, remote) = if forth == out {
        (near, far)
    } else {
        (far, near)
    };
    let direction = if out { "out" } else { "in" };
    let [encryption_key, integrity_key] = pair.keys(spi);
    let mut text = format!(
        "[[sa]]\nname = \"{direction}-{number}\"\ndirection = \"{direction}\"\n\
         protocol = \"esp\"\nmode = \"tunnel\"\nspi = {spi}\nsource = \"{source}\"\n\
         destination = \"{destination}\"\nencryption = \"{}\"\n{}",
        pair.encryption.name(),
        pair.more,
    );
    if !encryption_key.is_empty() {
        text += &format!("encryption_key = \"{}\"\n", hex(&encryption_key));
    }
    if let Some(integrity) = pair.integrity {
        let (name, key) = (integrity.name(), hex(&integrity_key));
        text += &format!("integrity = \"{name}\"\nintegrity_key = \"{key}\"\n");
    }
    let ports = if number == 4 {
        "protocol = \"udp\"\nlocal_port = [5000, \"6000-7000\"]\n"
    } else {
        ""
    };
    text + &format!(
        "[[policy]]\nname = \"{direction}-{number}\"\ndirection = \"{direction}\"\n\
         action = \"protect\"\nlocal = \"{local}\"\nremote = \"{remote}\"\npriority = 100\n\
         {ports}sa = [\"{direction}-{number}\"]\n",
    )
}

fn config(far: bool) -> Config {
    let bytes = file(far).into_bytes().into();
    config::parse(Path::new("fuzz.toml"), bytes, Purpose::Replay)
        .unwrap_or_else(|errors| panic!("the fuzzing's own configuration: {errors:?}"))
}

/// A gateway and what it was offered.
pub(crate) struct Gateway {
    feed: Feed,
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
        Self {
            feed: Feed::new(config(far), FRAMES, FRAME_SIZE).unwrap(),
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

    /// Every packet ended once, and every frame lies where it belongs.
    pub(crate) fn settle(mut self) -> Feed {
        let document = self.feed.document();
        let it = document.accounting;
        assert_eq!((it.rx, it.from_host), (self.offered, self.from_host));
        let ended = it.tx + it.to_host + it.dropped + it.consumed + it.merged + it.held;
        assert_eq!(it.rx + it.from_host + it.created, ended, "{it:?}");
        let drops = document.drops.values().map(|count| count.as_u64().unwrap());
        assert_eq!(drops.sum::<u64>(), it.dropped);
        assert!(self.feed.every_frame_is_home());
        self.feed
    }
}

/// Frames of ESP packets as the near gateway receives them.
pub(crate) fn esp_frame(number: usize, esp: &[u8], traffic_class: u8) -> Vec<u8> {
    let pair = &PAIRS[number];
    let mut packet = if pair.v6 {
        packets::v6(50, 0, 0, esp)
    } else if pair.more.contains("udp_encapsulation") {
        let mut datagram = packets::udp(4500, 4500, 8 + esp.len() as u16);
        datagram[8..].copy_from_slice(esp);
        v4(17, FAR, NEAR, &datagram)
    } else {
        v4(50, FAR, NEAR, esp)
    };
    if pair.v6 {
        // From the far gateway's address to the near one's.
        packet[8..24].copy_from_slice(&packets::address_v6(0, 2));
        packet[24..40].copy_from_slice(&packets::address_v6(0, 1));
        packet[0] |= traffic_class >> 4;
        packet[1] |= traffic_class << 4;
    } else {
        packet[1] = traffic_class;
        packets::finish(&mut packet);
    }
    packets::frame(MACS[WAN], &packet)
}
