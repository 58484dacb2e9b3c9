//! Answers that the RFCs print, as ESP packets: RFC 3602, 3686, draft-mcgrew-gcm-test-01 (the
//! packets of RFC 4106) and, turned into RFC 4543's form, their GMAC. The MACs' own answers (RFC
//! 2202, 4231, 4868, 3566, 4493) and RFC 7634's packet stand beside the MACs in the crate.

use ipsec::crypto::suite::{Encryption, Integrity, Suite};

use crate::packet::{Head, opened, sealed, transforms};
use crate::records::records;
use crate::second;

const MAC_KEY: [u8; 20] = [0x5a; 20];

/// Seals by a cipher with HMAC-SHA1-96 beside it, compares header, IV and ciphertext with the
/// published ones and the ICV with the second implementation's, and opens.
pub(crate) fn published(
    encryption: Encryption,
    key: &[u8],
    head: Head,
    [iv, text, expected]: [&[u8]; 3],
    place: &str,
) {
    let integrity = Some(Integrity::Sha1_96);
    let suite = Suite {
        encryption,
        integrity,
    };
    for (name, transform) in transforms(suite, key, &MAC_KEY) {
        let packet = sealed(&transform, head, iv, text);
        let (covered, icv) = packet.split_at(packet.len() - suite.icv_length());
        assert_eq!(
            covered,
            [&head.bytes(), iv, expected].concat(),
            "{place} {name}"
        );
        let mac = second::mac(Integrity::Sha1_96, &MAC_KEY, covered);
        assert_eq!(icv, &mac[..12], "{place} {name}");
        assert_eq!(
            opened(&transform, head, &packet).as_deref(),
            Some(text),
            "{place} {name}"
        );
    }
}

/// RFC 3602 section 4, all eight cases; the last four are whole ESP packets but for the ICV, which
/// the RFC leaves out.
//= test T17
//= test T144
#[test]
fn aes_cbc_of_rfc_3602() {
    let mut packets = 0;
    for record in records("rfc/rfc3602.rsp") {
        let [key, iv, text, expected] =
            ["KEY", "IV", "PLAINTEXT", "CIPHERTEXT"].map(|name| record.bytes(name));
        let mut head = Head::PLAIN;
        if record.has("HEADER") {
            packets += 1;
            head = Head::of(&record.bytes("HEADER")).unwrap();
            // The outer header counts what stands behind it: ESP header, IV, ciphertext.
            let outer = record.bytes("OUTER");
            let total = usize::from(u16::from_be_bytes([outer[2], outer[3]]));
            assert_eq!((outer[9], total), (50, 20 + 8 + iv.len() + expected.len()));
        }
        let bits = key.len() as u16 * 8;
        published(
            Encryption::AesCbc { bits },
            &key,
            head,
            [&iv, &text, &expected],
            &record.place,
        );
    }
    assert_eq!(packets, 4);
}

/// RFC 3686 section 6, all nine vectors.
//= test T18
#[test]
fn aes_ctr_of_rfc_3686() {
    let all = records("rfc/rfc3686.rsp");
    assert_eq!(all.len(), 9);
    for record in all {
        let [key, nonce, iv, text, expected] =
            ["KEY", "NONCE", "IV", "PLAINTEXT", "CIPHERTEXT"].map(|name| record.bytes(name));
        let bits = key.len() as u16 * 8;
        published(
            Encryption::AesCtr { bits },
            &[key, nonce].concat(),
            Head::PLAIN,
            [&iv, &text, &expected],
            &record.place,
        );
    }
}

/// The fourteen ESP packets of draft-mcgrew-gcm-test-01, nine of them with extended sequence
/// numbers.
//= test T05
//= test T16
#[test]
fn aes_gcm_packets_of_the_draft() {
    let all = records("rfc/draft-mcgrew-gcm-test-01.rsp");
    let mut extended = 0;
    assert_eq!(all.len(), 14);
    for record in all {
        let [key, nonce, data, text, expected, tag] =
            ["Key", "IV", "AAD", "PT", "CT", "Tag"].map(|name| record.bytes(name));
        let head = Head::of(&data).unwrap();
        extended += u32::from(head.esn);
        let (salt, iv) = nonce.split_at(4);
        let salted = [&key, salt].concat();
        for icv in [16, 12, 8] {
            let suite = Suite {
                encryption: Encryption::AesGcm {
                    bits: key.len() as u16 * 8,
                    icv,
                },
                integrity: None,
            };
            for (name, transform) in transforms(suite, &salted, &[]) {
                let place = format!("{} {name} icv {icv}", record.place);
                let packet = sealed(&transform, head, iv, &text);
                let icv = &tag[..usize::from(icv)];
                assert_eq!(
                    packet,
                    [&head.bytes(), iv, &expected, icv].concat(),
                    "{place}"
                );
                assert_eq!(
                    opened(&transform, head, &packet).as_ref(),
                    Some(&text),
                    "{place}"
                );
                let other = Head {
                    esn: !head.esn,
                    ..head
                };
                assert_eq!(opened(&transform, other, &packet), None, "{place}");
            }
        }
    }
    assert_eq!(extended, 9);
}
