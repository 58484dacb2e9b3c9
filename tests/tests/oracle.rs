//! Goal: the oracle itself is sound. Method: scapy seals, scapy opens, and a flipped bit, a wrong
//! number or a foreign packet shows up in the report. No gateway is involved.
#![expect(clippy::unwrap_used, reason = "a broken fixture ends the test")]

use anyhow::{Result, ensure};
use serde_json::json;
use xipsec_tests::config::{Family, LEFT, RIGHT, hex};
use xipsec_tests::expect::with_scapy;
use xipsec_tests::packets::{self, Flavor, Frame, IpFields};
use xipsec_tests::{peer, replay, suite};

fn pings(count: u16) -> Result<Vec<Frame>> {
    let frame = |number: u16| {
        let message = packets::echo(7, number, &[0x5a; 100]);
        let fields = IpFields::default();
        let packet = packets::ip(LEFT.host[0], RIGHT.host[0], packets::ICMP, fields, &message)?;
        Ok(replay::from_host(u64::from(number), &packet))
    };
    (1..=count).map(frame).collect()
}

#[test]
fn scapy_opens_what_scapy_sealed() {
    with_scapy("scapy_opens_what_scapy_sealed", || {
        for suite in suite::ALL {
            for outer in [Family::V4, Family::V6] {
                let directory = tempfile::tempdir()?;
                let [mut sa, _] = replay::sas(outer, suite);
                sa.esn = true;
                let plain = pings(5)?;
                let sealed = peer::seal(&sa, 1, &plain, directory.path())?;
                let capture = directory.path().join("sealed.pcap");
                packets::write(&capture, &sealed)?;
                let opened = peer::open(&[sa], &capture)?;
                ensure!(
                    opened.count("esp") == 5 && opened.count("failed") == 0,
                    "{suite:?}"
                );
                let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
                let sent: Vec<&[u8]> = plain.iter().map(Frame::packet).collect();
                ensure!(inner == sent, "{suite:?}");
                let header = if outer == Family::V4 { 20 } else { 40 };
                let length = suite.sealed_length(header, sent[0].len());
                ensure!(sealed[0].packet().len() == length, "{suite:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn scapy_notices_what_is_wrong() {
    with_scapy("scapy_notices_what_is_wrong", || {
        let directory = tempfile::tempdir()?;
        let [sa, _] = replay::sas(Family::V4, suite::AES128GCM16);
        let crafts = [
            json!({"number": 1}),
            json!({"number": 2, "flip": true}),
            json!({"number": 1}),
            json!({"number": 3, "next_header": 59}),
        ];
        let plain = pings(4)?;
        let mut frames = peer::seal_crafted(&sa, &plain, &crafts, directory.path())?;
        frames.push(plain[0].clone());
        let capture = directory.path().join("sealed.pcap");
        packets::write(&capture, &frames)?;
        let opened = peer::open(&[sa], &capture)?;
        let counts = ["esp", "failed", "repeated", "disorder", "dummies", "other"];
        let counts = counts.map(|key| opened.count(key));
        ensure!(counts == [4, 1, 1, 1, 1, 1], "{}", opened.report);
        Ok(())
    });
}

#[test]
fn captures_survive_a_round_trip() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    let frames = pings(3).unwrap();
    for (nanoseconds, big_endian) in [(false, false), (true, false), (false, true), (true, true)] {
        let flavor = Flavor {
            nanoseconds,
            big_endian,
        };
        packets::write_as(&path, &frames, flavor).unwrap();
        assert_eq!(packets::read(&path).unwrap(), frames);
    }
}

#[test]
fn packets_carry_right_checksums() {
    let udp = packets::udp("10.1.0.2", "10.2.0.2", [1000, 2000], b"odd").unwrap();
    let pseudo = |protocol, bytes: &[u8]| {
        let [from, to] = ["10.1.0.2", "10.2.0.2"].map(|text| text.parse().unwrap());
        packets::checksum(packets::pseudo_sum(from, to, protocol, bytes.len()), bytes)
    };
    assert_eq!(pseudo(packets::UDP, &udp), 0);
    let tcp = packets::tcp("10.1.0.2", "10.2.0.2", [1000, 2000], b"data").unwrap();
    assert_eq!(pseudo(packets::TCP, &tcp), 0);
    let ip = packets::ip("10.1.0.2", "10.2.0.2", 17, IpFields::default(), &udp).unwrap();
    assert_eq!(packets::checksum(0, &ip[..20]), 0, "{}", hex(&ip));
}
