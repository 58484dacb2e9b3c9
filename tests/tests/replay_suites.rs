//! Goal: what the gateway seals, an independent ESP implementation opens, and the other way round,
//! for every algorithm and pairing of IP versions. Method: `replay` in the middle, scapy with the
//! keys at the far end, bytes compared.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{sa_member, with_scapy};
use xipsec_tests::packets::{self, DONT_FRAGMENT, Frame, IpFields, UDP};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::{peer, suite};

/// Payload sizes around every alignment, up to the largest inner packet of 1500 bytes of wire.
const SIZES: [usize; 9] = [0, 1, 2, 3, 4, 63, 512, 1000, 1370];

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A UDP packet from one host to the other.
fn datagram(hosts: [&str; 2], size: usize, fields: IpFields) -> Result<Vec<u8>> {
    let [source, destination] = hosts;
    let data: Vec<u8> = (0_u8..=255).cycle().take(size).collect();
    let payload = packets::udp(source, destination, [4000, 5000], &data)?;
    packets::ip(source, destination, UDP, fields, &payload)
}

fn one_hop_less(fields: IpFields) -> IpFields {
    IpFields {
        hop_limit: fields.hop_limit - 1,
        ..fields
    }
}

fn times(from: u64) -> impl Iterator<Item = u64> {
    (from..).step_by(10)
}

#[test]
fn scapy_opens_what_the_gateway_seals() {
    with_scapy("scapy_opens_what_the_gateway_seals", || {
        for (suite, outer) in suite::ALL
            .into_iter()
            .flat_map(|s| FAMILIES.map(|f| (s, f)))
        {
            seals(suite, outer).with_context(|| format!("{}, outer {outer:?}", suite.name()))?;
        }
        Ok(())
    });
}

fn seals(suite: suite::Suite, outer: Family) -> Result<()> {
    let mut sas = replay::sas(outer, suite);
    sas[0].esn = true;
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let (fields, mut sent, mut expected) = (IpFields::default(), Vec::new(), Vec::new());
    for (family, size) in FAMILIES
        .into_iter()
        .flat_map(|f| SIZES.map(|size| (f, size)))
    {
        let hosts = replay::hosts(&LEFT, &RIGHT, family);
        sent.push(datagram(hosts, size, fields)?);
        expected.push(datagram(hosts, size, one_hop_less(fields))?);
    }
    let frames = times(1_000_000)
        .zip(&sent)
        .map(|(at, packet)| replay::from_host(at, packet));
    let frames: Vec<Frame> = frames.collect();
    replay.input("lan0", frames.clone());
    let result = replay.run()?;
    ensure!(result.wan.len() == sent.len(), "{}", result.json);
    let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
    ensure!(
        opened.count("failed") == 0 && opened.count("repeated") == 0,
        "{}",
        opened.report
    );
    let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
    ensure!(inner == expected, "the inner packets differ");
    let numbers: Vec<u64> = (1..).take(sent.len()).collect();
    ensure!(
        opened.report["sequences"]["4097"] == json!(numbers),
        "{}",
        opened.report
    );
    ensure!(sa_member(&result.json, &sas[0].name, "sequence")? == sent.len() as u64);
    let header = if outer == Family::V4 { 20 } else { 40 };
    for ((frame, packet), arrived) in result.wan.iter().zip(&sent).zip(&frames) {
        let length = suite.sealed_length(header, packet.len());
        ensure!(frame.packet().len() == length, "more padding than aligns");
        ensure!(
            frame.time == arrived.time,
            "an output has the time of its input"
        );
        ensure!(
            frame.bytes[..12] == replay::to_peer(0, &[]).bytes[..12],
            "MAC addresses"
        );
        outer_header(frame.packet(), outer)?;
    }
    let bytes: u64 = sent.iter().map(|packet| packet.len() as u64).sum();
    ensure!(
        sa_member(&result.json, &sas[0].name, "bytes")? == bytes,
        "{}",
        result.json["sas"]
    );
    Ok(())
}

fn outer_header(packet: &[u8], outer: Family) -> Result<()> {
    let (hops, protocol) = match outer {
        Family::V4 => (packet[8], packet[9]),
        Family::V6 => (packet[7], packet[6]),
    };
    ensure!(
        hops == 64 && protocol == packets::ESP,
        "hop limit {hops}, protocol {protocol}"
    );
    ensure!(
        outer == Family::V6 || packets::checksum(0, &packet[..20]) == 0,
        "header checksum"
    );
    Ok(())
}

#[test]
fn the_gateway_opens_what_scapy_seals() {
    with_scapy("the_gateway_opens_what_scapy_seals", || {
        for (suite, outer) in suite::ALL
            .into_iter()
            .flat_map(|s| FAMILIES.map(|f| (s, f)))
        {
            opens(suite, outer).with_context(|| format!("{}, outer {outer:?}", suite.name()))?;
        }
        Ok(())
    });
}

fn opens(suite: suite::Suite, outer: Family) -> Result<()> {
    let mut sas = replay::sas(outer, suite);
    sas[1].esn = true;
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let (fields, mut plain, mut expected) = (IpFields::default(), Vec::new(), Vec::new());
    let cases = FAMILIES
        .into_iter()
        .flat_map(|f| SIZES.map(|size| (f, size)));
    for (at, (family, size)) in times(1_000_000).zip(cases) {
        let hosts = replay::hosts(&RIGHT, &LEFT, family);
        plain.push(replay::from_peer(at, &datagram(hosts, size, fields)?));
        let opened = datagram(hosts, size, one_hop_less(fields))?;
        expected.push(replay::to_host(at, &opened));
    }
    let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
    replay.input("wan0", sealed);
    let result = replay.run()?;
    ensure!(
        result.lan == expected,
        "what was opened differs: {}",
        result.json
    );
    ensure!(sa_member(&result.json, &sas[1].name, "packets")? == plain.len() as u64);
    ensure!(sa_member(&result.json, &sas[1].name, "sequence")? == plain.len() as u64);
    Ok(())
}

#[test]
fn without_a_cipher_the_bytes_are_scapys() {
    with_scapy("without_a_cipher_the_bytes_are_scapys", || {
        for suite in [suite::NULL_SHA1, suite::NULL_SHA256] {
            let sas = replay::sas(Family::V4, suite);
            let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
            let (fields, hosts) = (
                IpFields::default(),
                replay::hosts(&LEFT, &RIGHT, Family::V4),
            );
            let sizes = SIZES.into_iter().zip(times(5));
            let packets = sizes.map(|(size, at)| {
                let sent = replay::from_host(at, &datagram(hosts, size, fields)?);
                let inner = datagram(hosts, size, one_hop_less(fields))?;
                anyhow::Ok((sent, replay::to_peer(at, &inner)))
            });
            let (sent, inner): (Vec<_>, Vec<_>) =
                packets.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            let expected = peer::seal(&sas[0], 1, &inner, replay.directory())?;
            replay.input("lan0", sent);
            let result = replay.run()?;
            let body = |frame: &Frame| frame.packet()[20..].to_vec();
            let ours: Vec<_> = result.wan.iter().map(body).collect();
            ensure!(
                ours == expected.iter().map(body).collect::<Vec<_>>(),
                "{}",
                suite.name()
            );
        }
        Ok(())
    });
}

#[test]
fn outer_headers_copy_what_they_must() {
    with_scapy("outer_headers_copy_what_they_must", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
        let hosts = replay::hosts(&LEFT, &RIGHT, Family::V4);
        let cases = [
            (0, 0),
            (0xb8, DONT_FRAGMENT),
            (0x02, 0),
            (0x03, DONT_FRAGMENT),
            (0xff, 0),
        ];
        let frames = cases.into_iter().zip(times(1)).map(|((class, flags), at)| {
            let fields = IpFields {
                traffic_class: class,
                fragment: flags,
                ..IpFields::default()
            };
            Ok(replay::from_host(at, &datagram(hosts, 100, fields)?))
        });
        replay.input("lan0", frames.collect::<Result<Vec<_>>>()?);
        let result = replay.run()?;
        ensure!(result.wan.len() == cases.len(), "{}", result.json);
        let mut identifications = Vec::new();
        for (frame, (class, flags)) in result.wan.iter().zip(cases) {
            let packet = frame.packet();
            ensure!(
                packet[1] == class,
                "class {class:#x} became {:#x}",
                packet[1]
            );
            let field = u16::from_be_bytes([packet[6], packet[7]]);
            ensure!(field == flags, "flags {flags:#x} became {field:#x}");
            if flags == 0 {
                identifications.push([packet[4], packet[5]]);
            }
        }
        identifications.sort_unstable();
        identifications.dedup();
        ensure!(
            identifications.len() == 3,
            "identifications repeat with DF clear"
        );
        Ok(())
    });
}

#[test]
fn unfinished_checksums_are_finished_before_sealing() {
    with_scapy("unfinished_checksums_are_finished_before_sealing", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let mut config = replay::tunnel(&sas, &[]).text().to_owned();
        // Replay has no veth to recognise: the port says that its sums may be unfinished.
        config = config.replace(
            "name = \"lan0\"\n",
            "name = \"lan0\"\nchecksum = \"complete\"\n",
        );
        let replay = Replay::new(&replay::network(&[]))?;
        std::fs::write(replay.file("replay.toml"), config)?;
        let mut replay = replay;
        let hosts = replay::hosts(&LEFT, &RIGHT, Family::V4);
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for protocol in [packets::TCP, UDP] {
            let payload = match protocol {
                UDP => packets::udp(hosts[0], hosts[1], [1, 2], b"some data")?,
                _ => packets::tcp(hosts[0], hosts[1], [1, 2], b"some data")?,
            };
            let field = if protocol == UDP { 6 } else { 16 };
            let mut unfinished = payload.clone();
            let [from, to] = [hosts[0].parse()?, hosts[1].parse()?];
            let pseudo = packets::pseudo_sum(from, to, protocol, payload.len());
            let folded = !packets::checksum(pseudo, &[]);
            unfinished[field..field + 2].copy_from_slice(&folded.to_be_bytes());
            let fields = IpFields::default();
            sent.push(packets::ip(
                hosts[0],
                hosts[1],
                protocol,
                fields,
                &unfinished,
            )?);
            let fields = one_hop_less(fields);
            expected.push(packets::ip(hosts[0], hosts[1], protocol, fields, &payload)?);
        }
        let frames = times(1)
            .zip(&sent)
            .map(|(at, packet)| replay::from_host(at, packet));
        replay.input("lan0", frames.collect());
        replay.run()?;
        let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
        let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
        ensure!(inner == expected, "a checksum went out unfinished");
        Ok(())
    });
}
