//! Goal: no frame whatsoever breaks the gateway, and what is not ours goes to the machine as it
//! came. Method: every kind of foreign frame, then thousands of frames with random damage; the
//! accounting identity is checked by every run.

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{conclude, with_scapy};
use xipsec_tests::packets::{self, ARP, Frame, ICMPV6, IPV4, IPV6, IpFields, UDP};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::{peer, suite};

fn tunnel() -> Result<Replay> {
    Replay::new(&replay::tunnel(
        &replay::sas(Family::V4, suite::AES128GCM16),
        &[],
    ))
}

fn udp(from: &str, to: &str, ports: [u16; 2]) -> Result<Vec<u8>> {
    let payload = packets::udp(from, to, ports, b"payload")?;
    packets::ip(from, to, UDP, IpFields::default(), &payload)
}

#[test]
fn what_is_not_ours_goes_to_the_machine_unchanged() {
    let body = || -> Result<()> {
        let good = udp(LEFT.host[0], RIGHT.host[0], [1, 2])?;
        let (host, gate) = (LEFT.macs[2], LEFT.macs[1]);
        let vlan = [&[0, 7, 8, 0][..], &good].concat();
        let solicitation = packets::echo(0, 0, &[0; 16]);
        let solicitation = packets::ip(
            "fe80::1",
            "ff02::1:ff00:2",
            ICMPV6,
            IpFields::default(),
            &solicitation,
        )?;
        let frames = [
            packets::ethernet(host, "ff:ff:ff:ff:ff:ff", ARP, &[0; 46]),
            packets::ethernet(host, gate, ARP, &[0; 46]),
            packets::ethernet(host, gate, 0x8100, &vlan),
            packets::ethernet(host, gate, 0x88cc, b"a neighbour's announcement"),
            packets::ethernet(host, gate, 0x0026, &[0xaa; 38]),
            packets::ethernet(host, "ff:ff:ff:ff:ff:ff", IPV4, &good),
            packets::ethernet(host, "01:00:5e:00:00:05", IPV4, &good),
            packets::ethernet(host, "02:00:00:00:99:99", IPV4, &good),
            packets::ethernet(host, "33:33:ff:00:00:02", IPV6, &solicitation),
            packets::ethernet(host, gate, IPV4, &udp(LEFT.host[0], LEFT.lan[0], [9, 22])?),
            packets::ethernet(
                host,
                gate,
                IPV4,
                &udp("169.254.1.1", "169.254.1.2", [1, 2])?,
            ),
            packets::ethernet(host, gate, IPV4, &udp(LEFT.host[0], "224.0.0.5", [1, 2])?),
        ];
        let frames: Vec<Frame> = (1..)
            .zip(frames)
            .map(|(at, bytes)| Frame::at(at, bytes))
            .collect();
        let mut replay = tunnel()?;
        let result = replay.input("lan0", frames.clone()).run()?;
        ensure!(result.host == frames, "{}", result.json);
        ensure!(result.json["ports"]["lan0"]["to_host_packets"] == frames.len());
        let mut replay = tunnel()?;
        let ike = [
            udp(RIGHT.wan[0], LEFT.wan[0], [500, 500])?,
            udp(RIGHT.wan[0], LEFT.wan[0], [9, 179])?,
        ];
        let ike: Vec<Frame> = (1..)
            .zip(&ike)
            .map(|(at, bytes)| replay::from_peer(at, bytes))
            .collect();
        let result = replay.input("wan0", ike.clone()).run()?;
        ensure!(result.host == ike, "{}", result.json);
        Ok(())
    };
    conclude(body());
}

#[test]
fn padding_behind_the_packet_is_cut() {
    with_scapy("padding_behind_the_packet_is_cut", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let packet = udp(LEFT.host[0], RIGHT.host[0], [1, 2])?;
        let mut padded = replay::from_host(1, &packet);
        padded.bytes.extend([0xee; 13]);
        let mut replay = tunnel()?;
        let result = replay.input("lan0", vec![padded.clone()]).run()?;
        let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
        ensure!(
            opened.inner[0].packet().len() == packet.len(),
            "the padding was sealed"
        );
        // Port bytes count the frame as it came.
        ensure!(result.json["ports"]["lan0"]["rx_bytes"] == padded.bytes.len());
        let mut sealed = result.wan;
        sealed[0].bytes.extend([0xee; 6]);
        Ok(())
    });
}

/// A small generator of repeatable noise (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> Result<usize> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let below = u64::try_from(below)?;
        usize::try_from(self.0 % below.max(1)).context("no such index")
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::try_from(self.next(256)?)?)
    }
}

/// Damages a frame: bytes changed, cut off, repeated or appended.
fn damaged(noise: &mut Noise, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    for _ in 0..=noise.next(4)? {
        // Mostly headers: that is where decisions are.
        let at = noise.next(bytes.len().min(80))?;
        match noise.next(8)? {
            0 => bytes.truncate(noise.next(bytes.len())?),
            1 => bytes.extend(vec![noise.byte()?; noise.next(64)?]),
            2 if at < bytes.len() => bytes[at] = 0,
            3 if at < bytes.len() => bytes[at] = 0xff,
            _ if at < bytes.len() => bytes[at] = noise.byte()?,
            _ => {}
        }
    }
    Ok(bytes)
}

#[test]
fn damage_is_counted_and_never_fatal() {
    with_scapy("damage_is_counted_and_never_fatal", || {
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
        let mut seeds = Vec::new();
        for family in [Family::V4, Family::V6] {
            let [a, b] = replay::hosts(&LEFT, &RIGHT, family);
            seeds.push(udp(a, b, [1, 2])?);
            let fields = IpFields {
                fragment: packets::MORE_FRAGMENTS,
                ..IpFields::default()
            };
            let segment = packets::tcp(a, b, [1, 2], &[7; 80])?;
            seeds.push(packets::ip(a, b, packets::TCP, fields, &segment)?);
        }
        // IPv6 with every extension header in a row.
        let extension = [
            60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0,
        ];
        let fragment = [17, 0, 0, 1, 0, 0, 0, 9, 0, 1, 0, 2, 0, 8, 0, 0];
        let chain = [&extension[..], &fragment].concat();
        seeds.push(packets::ip(
            LEFT.host[1],
            RIGHT.host[1],
            0,
            IpFields::default(),
            &chain,
        )?);
        let [b, a] = replay::hosts(&RIGHT, &LEFT, Family::V4);
        let plain: Vec<Frame> = vec![replay::from_peer(0, &udp(b, a, [1, 2])?)];
        seeds.push(
            peer::seal(&sas[1], 5, &plain, replay.directory())?[0]
                .packet()
                .to_vec(),
        );
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        for port in ["lan0", "wan0"] {
            let frames = (0..4000).map(|at| {
                let packet = &seeds[noise.next(seeds.len())?];
                let whole = if port == "lan0" {
                    replay::from_host(at, packet)
                } else {
                    replay::from_peer(at, packet)
                };
                Ok(Frame::at(at, damaged(&mut noise, whole.bytes)?))
            });
            replay.input(port, frames.collect::<Result<Vec<_>>>()?);
        }
        let result = replay.run()?;
        ensure!(result.json["accounting"]["rx"] == 8000, "{}", result.json);
        ensure!(
            result.dropped("malformed") > 100,
            "the damage reaches no parser"
        );
        Ok(())
    });
}
