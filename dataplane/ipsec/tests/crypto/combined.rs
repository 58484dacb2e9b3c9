//! Combined modes against NIST's CAVP and Wycheproof.
//!
//! ESP fixes what is authenticated beside the text (SPI and sequence number) and aligns the text,
//! so few published cases are ESP packets as they stand. Each is used in two steps: the second
//! implementation must agree with the case to the bit, and the packet with the case's key, nonce
//! and text must agree with the second implementation, its ciphertext with the case itself. A case
//! that must be refused gives its damage to the packet's ICV. Where the associated data have 8 or
//! 12 bytes, the packet's ICV is the case's tag.

use ipsec::crypto::suite::{Encryption, Suite};

use crate::packet::{Head, opened, sealed, transforms};
use crate::records::{Case, records, wycheproof};
use crate::second::{chacha20_poly1305, packet};
use crate::textbook::{gcm, gcm_tag, xor};

/// What a case says.
struct Given {
    place: String,
    key: Vec<u8>,
    nonce: Vec<u8>,
    data: Vec<u8>,
    text: Vec<u8>,
    /// The tag of the case, and the right one.
    tags: [Vec<u8>; 2],
    /// Ciphertext of `text`.
    sealed: Vec<u8>,
}

/// How many packets were compared, and of these how many were the published case itself.
#[derive(Default)]
struct Seen {
    packets: usize,
    damaged: usize,
    literal: usize,
}

fn only(encryption: Encryption) -> Suite {
    Suite {
        encryption,
        integrity: None,
    }
}

/// Takes a case through packets of a suite.
fn through_packets(encryption: Encryption, given: &Given, seen: &mut Seen) {
    let (salt, iv) = given.nonce.split_at(4);
    let key = [&given.key[..], salt].concat();
    let suite = only(encryption);
    let literal = Head::of(&given.data)
        .filter(|_| given.text.len() >= 2 && given.text.len().is_multiple_of(suite.alignment()));
    let head = literal.unwrap_or(Head::PLAIN);
    let mut text = given.text.clone();
    text.resize((text.len() + 2).next_multiple_of(4), 0);
    if literal.is_some() {
        text.clone_from(&given.text);
    }
    let [tag, right] = &given.tags;
    let icv = suite.icv_length();
    // A short tag cannot damage what it does not cover.
    let damage = &xor(tag, right)[..tag.len().min(icv)];
    for (name, transform) in transforms(suite, &key, &[]) {
        let place = format!("{} {} {name}", given.place, encryption.name());
        let mut made = sealed(&transform, head, iv, &text);
        let expected = packet(suite, [&key, &[]], head, iv, &text);
        assert_eq!(made, expected, "{place}");
        assert_eq!(made[16..][..given.sealed.len()], given.sealed, "{place}");
        assert_eq!(
            opened(&transform, head, &made).as_ref(),
            Some(&text),
            "{place}"
        );
        seen.packets += 1;
        if literal.is_some() {
            assert_eq!(made[made.len() - icv..], right[..icv], "{place}");
            seen.literal += 1;
        }
        if damage.iter().any(|byte| *byte != 0) {
            let at = made.len() - icv;
            made[at..]
                .iter_mut()
                .zip(damage)
                .for_each(|(byte, damage)| *byte ^= damage);
            assert_eq!(opened(&transform, head, &made), None, "{place}");
            seen.damaged += 1;
        }
    }
}

/// CAVP, IVs of 96 bits, tags of 128, 96 and 64 bits: encryption, then decryption with the
/// records that must fail.
//= test T16
//= test T31
#[test]
fn aes_gcm_of_nist() {
    let mut seen = Seen::default();
    for bits in [128, 192, 256] {
        for kind in ["EncryptExtIV", "Decrypt"] {
            for record in records(&format!("nist/gcm{kind}{bits}.rsp")) {
                let [key, nonce, data, sealed, tag] =
                    ["Key", "IV", "AAD", "CT", "Tag"].map(|name| record.bytes(name));
                let icv = record.number("Taglen") / 8;
                // GCM's cipher is its own inverse.
                let text = gcm(&key, &nonce, &data, &sealed).0;
                let mut right = gcm_tag(&key, &nonce, &data, &sealed);
                right.truncate(icv);
                assert_eq!(tag == right, !record.fails, "{}", record.place);
                if record.has("PT") {
                    assert_eq!(text, record.bytes("PT"), "{}", record.place);
                }
                let given = Given {
                    place: record.place,
                    key,
                    nonce,
                    data,
                    text,
                    tags: [tag, right],
                    sealed,
                };
                let bits = bits as u16;
                let icv = icv as u8;
                through_packets(Encryption::AesGcm { bits, icv }, &given, &mut seen);
            }
        }
    }
    assert!(
        seen.packets >= 1000 && seen.damaged >= 400,
        "{}, {}",
        seen.packets,
        seen.damaged
    );
}

/// Key, nonce, associated data, text, tag of a Wycheproof case.
fn parts(case: &Case, data: &str, text: &str) -> [Vec<u8>; 5] {
    let of = |name: &str| match name {
        "" => Vec::new(),
        name => case.bytes(name),
    };
    ["key", "iv", data, text, "tag"].map(of)
}

/// Every ICV length of RFC 4106 for each case.
//= test T16
//= test T31
#[test]
fn aes_gcm_of_wycheproof() {
    let mut seen = Seen::default();
    for case in wycheproof("aes_gcm_test.json") {
        let [key, nonce, data, text, tag] = parts(&case, "aad", "msg");
        let (sealed, right) = gcm(&key, &nonce, &data, &text);
        let agrees = sealed == case.bytes("ct") && right == tag;
        assert_eq!(agrees, case.valid, "{}", case.place);
        assert!(case.valid || right != tag, "{}", case.place);
        let bits = key.len() as u16 * 8;
        let given = Given {
            place: case.place,
            key,
            nonce,
            data,
            text,
            tags: [tag, right],
            sealed,
        };
        for icv in [16, 12, 8] {
            through_packets(Encryption::AesGcm { bits, icv }, &given, &mut seen);
        }
    }
    assert!(
        seen.packets >= 500 && seen.damaged >= 150,
        "{}, {}",
        seen.packets,
        seen.damaged
    );
}

/// As ESP without confidentiality (RFC 4543): the message is what is authenticated.
//= test T150
//= test T31
#[test]
fn aes_gmac_of_wycheproof() {
    let mut seen = Seen::default();
    for case in wycheproof("aes_gmac_test.json") {
        let [key, nonce, message, _, tag] = parts(&case, "msg", "");
        let right = gcm_tag(&key, &nonce, &message, &[]);
        assert_eq!(right == tag, case.valid, "{}", case.place);
        let bits = key.len() as u16 * 8;
        if bits == 192 {
            continue;
        }
        let given = Given {
            place: case.place,
            key,
            nonce,
            data: Vec::new(),
            sealed: message.clone(),
            text: message,
            tags: [tag, right],
        };
        through_packets(Encryption::AesGmac { bits }, &given, &mut seen);
    }
    assert!(
        seen.packets >= 130 && seen.damaged >= 100,
        "{}, {}",
        seen.packets,
        seen.damaged
    );
}

//= test T21
//= test T31
#[test]
fn chacha20_poly1305_of_wycheproof() {
    let mut seen = Seen::default();
    for case in wycheproof("chacha20_poly1305_test.json") {
        let [key, nonce, data, text, tag] = parts(&case, "aad", "msg");
        let (sealed, right) = chacha20_poly1305(&key, &nonce, &data, &text);
        let agrees = sealed == case.bytes("ct") && right == tag;
        assert_eq!(agrees, case.valid, "{}", case.place);
        assert!(case.valid || right != tag, "{}", case.place);
        let given = Given {
            place: case.place,
            key,
            nonce,
            data,
            text,
            tags: [tag, right],
            sealed,
        };
        through_packets(Encryption::ChaCha20Poly1305, &given, &mut seen);
    }
    assert!(
        seen.packets >= 300 && seen.damaged >= 50,
        "{}, {}",
        seen.packets,
        seen.damaged
    );
    assert!(seen.literal >= 1, "{}", seen.literal);
}
