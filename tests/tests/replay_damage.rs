//! Goal: damage in one place or at the end of a packet never delivers anything, and every damaged
//! packet ends once. Method: `replay` over every single-bit flip and every truncation of a packet
//! that scapy sealed, then the packet itself.

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::with_scapy;
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
