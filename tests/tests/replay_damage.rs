//! Goal: damage in one place or at the end of a packet never delivers anything, and every damaged
//! packet ends once. Method: `replay` over every single-bit flip and every truncation of a packet
//! that scapy sealed, then the packet itself.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use xipsec_tests::config::{Config, Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, IpFields, UDP};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::{peer, suite};

/// Bytes of the outer IPv6 header that nobody compares: class, flow label, hop limit, source.
fn is_free(family: Family, byte: usize) -> bool {
    family == Family::V6 && (byte < 4 || byte == 7 || (8..24).contains(&byte))
}

#[test]
fn no_flip_and_no_cut_delivers_anything() {
    with_scapy("no_flip_and_no_cut_delivers_anything", || {
        for outer in [Family::V4, Family::V6] {
            for inner in [Family::V4, Family::V6] {
                for algorithms in [suite::AES128GCM16, suite::NULL_SHA1] {
                    damage(outer, inner, algorithms)
                        .with_context(|| format!("{outer:?} around {inner:?}"))?;
                }
            }
        }
        Ok(())
    });
}

fn damage(outer: Family, inner: Family, algorithms: suite::Suite) -> Result<()> {
    let sas = replay::sas(outer, algorithms);
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let [from, to] = replay::hosts(&RIGHT, &LEFT, inner);
    let payload = packets::udp(from, to, [1, 2], &[3; 20])?;
    let plain = packets::ip(from, to, UDP, IpFields::default(), &payload)?;
    let plain = [replay::from_peer(0, &plain)];
    let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
    let good = &sealed[0];
    let mut frames: Vec<Frame> = Vec::new();
    let mut add = |bytes: Vec<u8>| {
        let at = frames.len() as u64;
        frames.push(Frame::at(at, bytes));
    };
    // The Ethernet header is the link's business.
    for bit in 14 * 8..good.bytes.len() * 8 {
        if is_free(outer, bit / 8 - 14) {
            continue;
        }
        let mut bytes = good.bytes.clone();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        add(bytes);
    }
    for length in 14..good.bytes.len() {
        add(good.bytes[..length].to_vec());
    }
    let damaged = frames.len();
    frames.push(Frame::at(damaged as u64, good.bytes.clone()));
    let result = replay.input("wan0", frames.clone()).run()?;
    ensure!(result.lan.len() == 1, "{}", result.json);
    ensure!(
        result.lan[0].time.as_micros() == damaged as u128,
        "a damaged packet was delivered"
    );
    ensure!(result.wan.is_empty());
    // IPv6 has no header checksum: with another next header or a destination that is the kernel's
    // the packet is not IPsec for us, and the machine gets it sealed as it came.
    ensure!(outer == Family::V6 || result.host.is_empty());
    ensure!(result.host.iter().all(|frame| frames.contains(frame)));
    let damaged = damaged - result.host.len();
    ensure!(result.drops.len() == damaged, "{}", result.json["drops"]);
    let reasons = ["malformed", "authentication", "no_sa", "replay"];
    let others = ["no_policy", "wrong_direction", "fragment"];
    let known: u64 = reasons
        .iter()
        .chain(&others)
        .map(|it| result.dropped(it))
        .sum();
    ensure!(known == damaged as u64, "{}", result.json["drops"]);
    ensure!(
        result.dropped("authentication") > 300,
        "{}",
        result.json["drops"]
    );
    Ok(())
}

/// What an attacker may find on the wire: its SAs out and in, innermost first.
struct Kind {
    layers: Vec<[Sa; 2]>,
    outer: Family,
}

impl Kind {
    fn new(outer: Family, layers: &[(suite::Suite, &'static str)], udp: bool) -> Self {
        let layer = |(at, (suite, mode)): (u32, &(suite::Suite, &'static str))| {
            let mut sas = replay::sas(outer, *suite);
            for (way, sa) in (0..).zip(&mut sas) {
                sa.mode = mode;
                sa.spi = 0x2001 + 16 * at + way;
                sa.name = format!("sa-{at}-{way}");
                sa.udp = udp.then_some([4500, 4500]);
            }
            sas
        };
        Self {
            layers: (0..).zip(layers).map(layer).collect(),
            outer,
        }
    }

    /// Every kind but the plain tunnel: AH, transport mode, bundles, in UDP.
    fn all() -> Vec<Self> {
        let (esp, ah) = (suite::AES128GCM16, suite::AH_SHA256);
        let mut all = Vec::new();
        for outer in [Family::V4, Family::V6] {
            for layers in [
                &[(esp, "transport")][..],
                &[(ah, "tunnel")],
                &[(ah, "transport")],
                &[(esp, "tunnel"), (ah, "transport")],
                &[(esp, "transport"), (ah, "transport")],
            ] {
                all.push(Self::new(outer, layers, false));
            }
            for mode in ["tunnel", "transport"] {
                all.push(Self::new(outer, &[(esp, mode)], true));
            }
        }
        all
    }

    fn name(&self) -> String {
        let layers = self.layers.iter().map(|[sa, _]| {
            let udp = if sa.udp.is_some() { " in UDP" } else { "" };
            format!("{} {}{udp}", sa.protocol, sa.mode)
        });
        let layers: Vec<String> = layers.collect();
        format!("{} {:?}", layers.join(" in "), self.outer)
    }

    /// Where its packets begin and end, as a host's or as the gateways' own.
    fn ends(&self) -> [&'static str; 2] {
        let at = self.outer.index();
        match self.layers[0][0].mode {
            "transport" => [RIGHT.wan[at], LEFT.wan[at]],
            _ => replay::hosts(&RIGHT, &LEFT, self.outer),
        }
    }

    fn config(&self) -> Config {
        let mut config = replay::network(&[]);
        let [far, near] = self.ends();
        for (way, direction) in ["out", "in"].into_iter().enumerate() {
            for layer in &self.layers {
                config.sa(&layer[way], direction);
            }
            let names = self.layers.iter().map(|it| format!("\"{}\"", it[way].name));
            let names: Vec<String> = names.collect();
            let sas = format!("sa = [{}]", names.join(", "));
            config.policy([direction, direction, "protect"], [near, far], 100, &[sas]);
        }
        config
    }

    /// Bytes that may change on the way: see [`is_free`], AH covers the source as well. In UDP the
    /// peer's port and the checksum.
    fn is_free(&self, byte: usize) -> bool {
        let header = if self.outer == Family::V4 { 20 } else { 40 };
        let [_, outermost] = &self.layers[self.layers.len() - 1];
        let at = byte.wrapping_sub(header);
        let covered = outermost.protocol == "ah" && (8..24).contains(&byte);
        is_free(self.outer, byte) && !covered
            || outermost.udp.is_some() && (at < 2 || (6..8).contains(&at))
    }
}

//= test T31
//= test T34
//= test T48
#[test]
fn no_kind_of_packet_is_delivered_damaged() {
    with_scapy("no_kind_of_packet_is_delivered_damaged", || {
        for kind in Kind::all() {
            damaged(&kind).with_context(|| kind.name())?;
        }
        Ok(())
    });
}

fn damaged(kind: &Kind) -> Result<()> {
    let mut replay = Replay::new(&kind.config())?;
    let [from, to] = kind.ends();
    let payload = packets::udp(from, to, [1, 2], &[3; 20])?;
    let plain = packets::ip(from, to, UDP, IpFields::default(), &payload)?;
    let into: Vec<Sa> = kind.layers.iter().map(|layer| layer[1].clone()).collect();
    let spis: Vec<u32> = into.iter().map(|sa| sa.spi).collect();
    let craft = [json!({"number": 1, "spis": spis})];
    let frame = [replay::from_peer(0, &plain)];
    let sealed = peer::seal_through(&into, &frame, &craft, replay.directory())?;
    let good = &sealed[0].bytes;
    let mut frames: Vec<Frame> = Vec::new();
    let mut add = |bytes: Vec<u8>| {
        let at = frames.len() as u64;
        frames.push(Frame::at(at, bytes));
    };
    for bit in (14 * 8..good.len() * 8).filter(|bit| !kind.is_free(bit / 8 - 14)) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        add(bytes);
    }
    (14..good.len()).for_each(|length| add(good[..length].to_vec()));
    add(good.clone());
    let last = frames.len() - 1;
    let result = replay.input("wan0", frames.clone()).run()?;
    // What goes to the machine as it came is a clear packet, not a delivery.
    let (as_came, delivered): (Vec<&Frame>, Vec<&Frame>) =
        result.host.iter().partition(|frame| frames.contains(frame));
    let delivered: Vec<&Frame> = delivered.into_iter().chain(&result.lan).collect();
    let [one] = delivered[..] else {
        bail!("{} delivered: {}", delivered.len(), result.json);
    };
    ensure!(one.time.as_micros() == last as u128, "damage was delivered");
    let arrived = match into[0].mode {
        "transport" => plain,
        _ => packets::one_hop_less(&plain),
    };
    ensure!(one.packet() == arrived, "another packet was delivered");
    ensure!(result.wan.is_empty(), "{}", result.json);
    let dropped = last - as_came.len();
    ensure!(result.drops.len() == dropped, "{}", result.json["drops"]);
    for sa in &into {
        ensure!(sa_member(&result.json, &sa.name, "packets")? == 1);
    }
    let authentication = result.dropped("authentication");
    ensure!(authentication > 300, "{}", result.json["drops"]);
    Ok(())
}
