//! Goal: TCP SYNs announce no more than fits, where policy says so, both ways. Method: `replay`
//! over SYNs of both directions, the option read back byte by byte.

use anyhow::{Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::with_scapy;
use xipsec_tests::packets::{self, IpFields, TCP, checksum, pseudo_sum};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::{peer, suite};

/// A SYN that announces 1460 bytes behind two fillers and a window scale.
fn syn(from: &str, to: &str) -> Result<Vec<u8>> {
    let mut segment = packets::tcp(from, to, [4000, 80], &[])?;
    segment[12..14].copy_from_slice(&[0x70, 0x02]);
    segment.extend([1, 2, 4, 0x05, 0xb4, 1, 1, 0]);
    segment[16..18].fill(0);
    let pseudo = pseudo_sum(from.parse()?, to.parse()?, TCP, segment.len());
    let sum = checksum(pseudo, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    packets::ip(from, to, TCP, IpFields::default(), &segment)
}

/// What an opened or sealed SYN announces, after its checksum was found right.
fn announced(packet: &[u8], from: &str, to: &str, header: usize) -> Result<u16> {
    let segment = &packet[header..];
    let pseudo = pseudo_sum(from.parse()?, to.parse()?, TCP, segment.len());
    ensure!(checksum(pseudo, segment) == 0, "the TCP checksum is wrong");
    ensure!(segment[20..23] == [1, 2, 4], "the options moved");
    Ok(u16::from_be_bytes([segment[23], segment[24]]))
}

/// The option on one policy of the pair holds for both directions; `auto` is what AES-GCM in IPv4
/// leaves of 1500 bytes: 1446 of packet, headers of 40 or 60 bytes apart.
#[test]
fn syns_are_clamped_both_ways_by_either_policy_of_the_pair() {
    const NAME: &str = "syns_are_clamped_both_ways_by_either_policy_of_the_pair";
    with_scapy(NAME, || {
        for (line, on, expected) in [
            ("tcp_mss = \"off\"", "out", [1460, 1460]),
            ("tcp_mss = \"auto\"", "out", [1406, 1386]),
            ("tcp_mss = \"auto\"", "in", [1406, 1386]),
            ("tcp_mss = 1000", "out", [1000, 1000]),
            ("tcp_mss = 1000", "in", [1000, 1000]),
            ("tcp_mss = 9000", "in", [1460, 1460]),
        ] {
            let sas = replay::sas(Family::V4, suite::AES128GCM16);
            let mut config = replay::network(&[]);
            config.sa(&sas[0], "out").sa(&sas[1], "in");
            for at in [0, 1] {
                let nets = [LEFT.net[at], RIGHT.net[at]];
                for (direction, sa) in [("out", &sas[0]), ("in", &sas[1])] {
                    let mut lines = vec![format!("sa = [\"{}\"]", sa.name)];
                    if direction == on {
                        lines.push(line.to_owned());
                    }
                    let name = format!("{direction}-{at}");
                    config.policy([&name, direction, "protect"], nets, 100, &lines);
                }
            }
            for (family, header, expected) in
                [(Family::V4, 20, expected[0]), (Family::V6, 40, expected[1])]
            {
                let at = family.index();
                let [a, b] = [LEFT.host[at], RIGHT.host[at]];
                let mut replay = Replay::new(&config)?;
                let plain = [replay::from_peer(1, &syn(b, a)?)];
                let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
                let sent = vec![replay::from_host(2, &syn(a, b)?)];
                let result = replay.input("wan0", sealed).input("lan0", sent).run()?;
                ensure!(result.lan.len() == 1, "{}", result.json);
                let inbound = announced(result.lan[0].packet(), b, a, header)?;
                let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
                ensure!(opened.inner.len() == 1, "{}", opened.report);
                let outbound = announced(opened.inner[0].packet(), a, b, header)?;
                ensure!(
                    [inbound, outbound] == [expected; 2],
                    "{line} on {on}, {family:?}: {inbound} in, {outbound} out"
                );
            }
        }
        Ok(())
    });
}
