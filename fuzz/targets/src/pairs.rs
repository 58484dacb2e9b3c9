//! The SAs of the two gateways, each with its like in the other direction: every protocol, mode
//! and kind of algorithm, alone and in bundles.

use ipsec::crypto::suite::{Encryption, Integrity, Protocol, Suite};
use ipsec::crypto::{SealJob, Transform, ah, seal};
use ipsec::ip::mutable::End;
use ipsec::secret::Secret;

use crate::packets::{self, FAR, NEAR};

/// First SPI from near to far, and back.
pub(crate) const OUT: u32 = 0x1001;
pub(crate) const IN: u32 = 0x2001;

/// From the SPI of an SA to that of the one around it.
const DEEPER: u32 = 0x100;

/// One SA pair, or a bundle of them.
pub(crate) struct Pair {
    /// Innermost first.
    pub(crate) layers: &'static [Layer],
    /// IP version between the gateways, or the hosts where there is no tunnel.
    pub(crate) v6: bool,
    /// Between the gateways' own addresses, not the networks behind them.
    pub(crate) own: bool,
    /// What else the tables of its SAs say.
    more: &'static str,
}

/// One SA of a pair.
pub(crate) struct Layer {
    /// What its ICV or cipher is; AH has `Null` and no AEAD.
    suite: Suite,
    pub(crate) protocol: Protocol,
    pub(crate) tunnel: bool,
}

const fn esp(encryption: Encryption, integrity: Option<Integrity>) -> Layer {
    Layer {
        suite: Suite {
            encryption,
            integrity,
        },
        protocol: Protocol::Esp,
        tunnel: true,
    }
}

const fn ah(integrity: Integrity) -> Layer {
    Layer {
        suite: Suite {
            encryption: Encryption::Null,
            integrity: Some(integrity),
        },
        protocol: Protocol::Ah,
        tunnel: true,
    }
}

const fn transport(layer: Layer) -> Layer {
    Layer {
        tunnel: false,
        ..layer
    }
}

const fn pair(layers: &'static [Layer], v6: bool, more: &'static str) -> Pair {
    Pair {
        layers,
        v6,
        own: false,
        more,
    }
}

const GCM: Encryption = Encryption::AesGcm { bits: 128, icv: 16 };
const UDP: &str = "udp_encapsulation = { source_port = 4500, destination_port = 4500 }\n";

/// The pairs; number n has SPIs `OUT + n` and `IN + n` and the networks 10.(2n+1) and 10.(2n+2),
/// or 2001:db8:(2n+1) and 2001:db8:(2n+2), in hexadecimal.
pub(crate) const PAIRS: [Pair; 15] = [
    pair(&[esp(GCM, None)], false, ""),
    pair(
        &[esp(
            Encryption::AesCbc { bits: 128 },
            Some(Integrity::Sha1_96),
        )],
        false,
        "esn = true\ndont_fragment = \"clear\"\n",
    ),
    pair(&[esp(Encryption::ChaCha20Poly1305, None)], true, ""),
    pair(
        &[esp(Encryption::AesGcm { bits: 192, icv: 8 }, None)],
        false,
        UDP,
    ),
    pair(
        &[esp(Encryption::Null, Some(Integrity::Sha256_128))],
        false,
        "replay_window = 0\ndscp = 46\n",
    ),
    pair(
        &[esp(
            Encryption::AesCtr { bits: 256 },
            Some(Integrity::Aes128Xcbc96),
        )],
        false,
        "lifetime = { hard_packets = 3 }\nhop_limit = 2\n",
    ),
    pair(&[ah(Integrity::Sha256_128)], false, "replay_window = 128\n"),
    pair(
        &[ah(Integrity::AesGmac { bits: 128 })],
        true,
        "esn = true\n",
    ),
    pair(&[transport(esp(GCM, None))], false, "esn = true\n"),
    pair(
        &[transport(esp(
            Encryption::AesCbc { bits: 256 },
            Some(Integrity::Aes128Cmac96),
        ))],
        true,
        "",
    ),
    pair(&[transport(ah(Integrity::Sha512_256))], false, ""),
    pair(&[transport(ah(Integrity::Sha1_96))], true, "esn = true\n"),
    pair(
        &[
            transport(esp(GCM, None)),
            transport(ah(Integrity::Sha384_192)),
        ],
        false,
        "",
    ),
    pair(
        &[esp(GCM, None), ah(Integrity::Sha1_96)],
        true,
        "esn = true\n",
    ),
    Pair {
        own: true,
        ..pair(
            &[
                transport(ah(Integrity::Sha256_128)),
                transport(esp(Encryption::ChaCha20Poly1305, None)),
            ],
            false,
            "",
        )
    },
];

impl Layer {
    /// `encryption` and `integrity` with their keys, as a configuration has them.
    pub(crate) fn algorithms(&self, spi: u32) -> String {
        let hex = |key: &[u8]| -> String { key.iter().map(|byte| format!("{byte:02x}")).collect() };
        let [encryption, integrity] = self.keys(spi);
        let mut text = String::new();
        if self.protocol == Protocol::Esp {
            text += &format!("encryption = \"{}\"\n", self.suite.encryption.name());
        }
        if !encryption.is_empty() {
            text += &format!("encryption_key = \"{}\"\n", hex(&encryption));
        }
        if let Some(algorithm) = self.suite.integrity {
            let (name, key) = (algorithm.name(), hex(&integrity));
            text += &format!("integrity = \"{name}\"\nintegrity_key = \"{key}\"\n");
        }
        text
    }

    /// Puts ESP's padding in front of the next header at the end of `text`.
    fn pad(&self, text: &mut Vec<u8>) {
        let next = text.pop().unwrap_or(0);
        let whole = (text.len() + 2).next_multiple_of(self.suite.alignment());
        let padding = (whole - text.len() - 2) as u8;
        text.extend(1..=padding);
        text.extend([padding, next]);
    }

    fn keys(&self, spi: u32) -> [Vec<u8>; 2] {
        // No two SAs begin alike.
        let first = (spi as u8) << 3 | (spi >> 6) as u8 & 4 | (spi >> 12) as u8;
        let key = |length: usize, first: u8| (0..length).map(|at| first ^ (at * 5) as u8).collect();
        let integrity = self.suite.integrity.map_or(0, Integrity::key_length);
        [
            key(self.suite.encryption.key_length(), first),
            key(integrity, !first),
        ]
    }

    fn transform(&self, spi: u32) -> Transform {
        let [encryption, integrity] = self.keys(spi).map(Secret::new);
        Transform::new(self.suite, &encryption, &integrity).unwrap()
    }
}

impl Pair {
    /// Whether its SAs have extended sequence numbers.
    pub(crate) fn esn(&self) -> bool {
        self.more.contains("esn = true")
    }

    /// Whether ESP travels in UDP.
    pub(crate) fn encapsulated(&self) -> bool {
        self.more == UDP
    }

    /// The SPI of one of its SAs.
    pub(crate) const fn spi(first: u32, number: usize, layer: usize) -> u32 {
        first + number as u32 + DEEPER * layer as u32
    }

    /// Where an SA begins and ends, near end first, as it stands in a packet.
    pub(crate) fn ends(&self, number: usize, layer: usize) -> [Vec<u8>; 2] {
        let (near, far) = (2 * number as u8 + 1, 2 * number as u8 + 2);
        let gateways = self.own || self.layers[..=layer].iter().any(|layer| layer.tunnel);
        match (self.v6, gateways) {
            (false, true) => [NEAR.to_vec(), FAR.to_vec()],
            (false, false) => [vec![10, near, 0, 2], vec![10, far, 0, 2]],
            (true, true) => [1, 2].map(|host| packets::address_v6(0, host).to_vec()),
            (true, false) => [near, far].map(|net| packets::address_v6(net, 1).to_vec()),
        }
    }

    /// What stands in the configuration beside addresses and algorithms.
    pub(crate) const fn more(&self) -> &'static str {
        self.more
    }

    /// What the innermost SA may protect: a datagram between the ends or networks, one way.
    pub(crate) fn sample(&self, number: usize, forth: bool, length: u16) -> Vec<u8> {
        let (near, far) = (2 * number as u8 + 1, 2 * number as u8 + 2);
        let mut hosts = [near, far];
        let mut gateways = [NEAR, FAR];
        let mut ports = [6500, 9];
        if !forth {
            hosts.reverse();
            gateways.reverse();
            ports.reverse();
        }
        let payload = packets::udp(ports[0], ports[1], length);
        if self.own {
            packets::v4(6, gateways[0], gateways[1], &payload)
        } else if self.v6 {
            packets::v6(17, hosts[0], hosts[1], &payload)
        } else {
            let [source, destination] = hosts.map(|net| [10, net, 0, 2]);
            packets::v4(17, source, destination, &payload)
        }
    }

    /// The same as [`Self::sealed`] wants it.
    pub(crate) fn sample_text(&self, number: usize) -> Vec<u8> {
        let packet = self.sample(number, false, 40);
        let inner = &self.layers[0];
        let (payload, next) = match (inner.tunnel, self.v6) {
            (true, v6) => (&packet[..], if v6 { 41 } else { 4 }),
            (false, true) => (&packet[40..], packet[6]),
            (false, false) => (&packet[20..], packet[9]),
        };
        let mut text = [payload, &[next]].concat();
        if inner.protocol == Protocol::Esp {
            inner.pad(&mut text);
        }
        text
    }

    /// A packet of the SAs towards the near gateway. `text` is what the innermost protects, with
    /// the next header as its last byte; ESP's pad length comes before it, and what stands before
    /// that is brought to the cipher's alignment.
    pub(crate) fn sealed(&self, number: usize, sequence: u64, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        let mut packet = Vec::new();
        for (depth, layer) in self.layers.iter().enumerate() {
            if depth > 0 {
                text = if layer.tunnel {
                    let next = if self.v6 { 41 } else { 4 };
                    [&packet[..], &[next]].concat()
                } else {
                    let header = if self.v6 { 40 } else { 20 };
                    let next = self.layers[depth - 1].protocol as u8;
                    [&packet[header..], &[next]].concat()
                };
                if layer.protocol == Protocol::Esp {
                    layer.pad(&mut text);
                }
            }
            let spi = Self::spi(IN, number, depth);
            let ends = self.ends(number, depth);
            packet = match layer.protocol {
                Protocol::Esp => {
                    let esp = sealed_esp(layer, spi, (sequence, self.esn()), &text);
                    self.wrap(50, &ends, &esp)
                }
                Protocol::Ah => self.covered(layer, spi, sequence, &ends, &text),
            };
        }
        packet
    }

    /// An IP packet from the far end to the near one.
    fn wrap(&self, protocol: u8, [near, far]: &[Vec<u8>; 2], payload: &[u8]) -> Vec<u8> {
        let mut packet = if self.v6 {
            packets::v6(protocol, 0, 0, payload)
        } else {
            packets::v4(protocol, [0; 4], [0; 4], payload)
        };
        let place = if self.v6 { 8 } else { 12 };
        let addresses = [&far[..], near].concat();
        packet[place..place + addresses.len()].copy_from_slice(&addresses);
        packets::finish(&mut packet);
        packet
    }

    /// A packet with AH in front of `text` without its last byte.
    fn covered(
        &self,
        layer: &Layer,
        spi: u32,
        sequence: u64,
        ends: &[Vec<u8>; 2],
        text: &[u8],
    ) -> Vec<u8> {
        let (transform, suite) = (layer.transform(spi), layer.suite);
        let (next, payload) = text.split_last().unwrap_or((&0, &[]));
        let unit = if self.v6 { 8 } else { 4 };
        let length = (12 + suite.icv_length()).next_multiple_of(unit);
        let mut header = vec![*next, (length / 4 - 2) as u8, 0, 0];
        header.extend(spi.to_be_bytes());
        header.extend(&sequence.to_be_bytes()[4..]);
        header.extend(vec![sequence as u8; ah::iv_length(&suite)]);
        header.resize(length, 0);
        let mut packet = self.wrap(51, ends, &[&header[..], payload].concat());
        let header = if self.v6 { 40 } else { 20 };
        let covered = ah::Packet {
            bytes: &packet,
            header,
            sequence,
            esn: self.esn(),
            end: End::Sender,
        };
        let icv = ah::icv(&transform, &covered).unwrap();
        let place = ah::icv_place(&suite);
        let bytes = place.len();
        packet[header..][place].copy_from_slice(&icv[..bytes]);
        packet
    }
}

/// From the ESP header to the ICV.
fn sealed_esp(layer: &Layer, spi: u32, (sequence, esn): (u64, bool), text: &[u8]) -> Vec<u8> {
    let (transform, suite) = (layer.transform(spi), layer.suite);
    let mut text = text.to_vec();
    while text.len() < 2 || !text.len().is_multiple_of(suite.alignment()) {
        text.insert(text.len().saturating_sub(2), 0);
    }
    let (payload, trailer) = text.split_at(text.len() - 2);
    let mut esp = spi.to_be_bytes().to_vec();
    esp.extend(&sequence.to_be_bytes()[4..]);
    esp.extend(vec![sequence as u8; suite.iv_length()]);
    esp.resize(esp.len() + payload.len(), 0);
    esp.extend(trailer);
    esp.resize(esp.len() + suite.icv_length(), 0);
    seal(&mut [SealJob {
        transform: &transform,
        source: payload,
        destination: &mut esp,
        sequence,
        esn,
    }]);
    esp
}
