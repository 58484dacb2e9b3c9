//! MACs against Wycheproof, as packets of ESP without confidentiality.
//!
//! What ESP authenticates begins with SPI and sequence number and ends, with ESN, with the number's
//! high half; NULL encryption leaves the rest as it stands. So a message is a packet as soon as it
//! is long enough and whole words; every other one is asked of the second implementation alone.

use ipsec::crypto::suite::{Encryption, Integrity, Suite};

use crate::packet::{Head, opened, sealed, transforms};
use crate::records::wycheproof;
use crate::second;
use crate::textbook::xor;

/// The message as a packet's text, without and with ESN.
fn packets(message: &[u8]) -> Vec<(Head, &[u8])> {
    let words = |text: &[u8]| text.len() >= 4 && text.len().is_multiple_of(4);
    let mut found = Vec::new();
    if let Some((head, text)) = message.split_at_checked(8).filter(|(_, text)| words(text)) {
        found.push((Head::of(head).unwrap(), text));
    }
    if let Some((head, rest)) = message
        .split_at_checked(8)
        .filter(|(_, rest)| rest.len() > 4)
    {
        let (text, high) = rest.split_at(rest.len() - 4);
        let data = [&head[..4], high, &head[4..]].concat();
        if words(text) {
            found.push((Head::of(&data).unwrap(), text));
        }
    }
    found
}

/// Runs a file through `integrity`; how many packets were accepted and refused.
fn run(file: &str, integrity: Integrity) -> (usize, usize) {
    let suite = Suite {
        encryption: Encryption::Null,
        integrity: Some(integrity),
    };
    let (mut accepted, mut refused) = (0, 0);
    for case in wycheproof(file) {
        let [key, message, tag] = ["key", "msg", "tag"].map(|name| case.bytes(name));
        let right = second::mac(integrity, &key, &message);
        assert_eq!(right.starts_with(&tag), case.valid, "{}", case.place);
        let damage = xor(&tag, &right);
        let damage = &damage[..damage.len().min(integrity.icv_length())];
        for (head, text) in packets(&message) {
            for (name, transform) in transforms(suite, &[], &key) {
                let place = format!("{} {name} esn {}", case.place, head.esn);
                let mut packet = sealed(&transform, head, &[], text);
                let at = 8 + text.len();
                assert_eq!(packet[8..at], *text, "{place}");
                assert_eq!(packet[at..], right[..packet.len() - at], "{place}");
                let back = opened(&transform, head, &packet);
                assert_eq!(back.as_deref(), Some(text), "{place}");
                accepted += 1;
                if damage.iter().any(|byte| *byte != 0) {
                    packet[at..]
                        .iter_mut()
                        .zip(damage)
                        .for_each(|(byte, bits)| *byte ^= bits);
                    assert_eq!(opened(&transform, head, &packet), None, "{place}");
                    refused += 1;
                }
            }
        }
    }
    (accepted, refused)
}

//= test T19
//= test T20
//= test T31
#[test]
fn hmac_of_wycheproof() {
    for (file, integrity) in [
        ("hmac_sha1_test.json", Integrity::Sha1_96),
        ("hmac_sha256_test.json", Integrity::Sha256_128),
        ("hmac_sha384_test.json", Integrity::Sha384_192),
        ("hmac_sha512_test.json", Integrity::Sha512_256),
    ] {
        let (accepted, refused) = run(file, integrity);
        assert!(
            accepted >= 80 && refused >= 40,
            "{file}: {accepted}, {refused}"
        );
    }
}

//= test T31
#[test]
fn aes_cmac_of_wycheproof() {
    let (accepted, refused) = run("aes_cmac_test.json", Integrity::Aes128Cmac96);
    assert!(accepted >= 60 && refused >= 30, "{accepted}, {refused}");
}
