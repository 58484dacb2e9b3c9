//! Every suite of AH at every size, over both IP versions, against the second implementation: what
//! is covered is written down here once more, from RFC 4302 section 3.3.3 and RFC 4543 section 4.

use ipsec::crypto::ah::{Packet, icv, icv_place, verify};
use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::crypto::{Backend, Transform};
use ipsec::ip::mutable::End;
use ipsec::secret::Secret;

use crate::packet::Head;
use crate::second;
use crate::sweep::bytes;

/// A packet whose ICV is still zero, and what of it counts.
struct Made {
    packet: Vec<u8>,
    header: usize,
    iv: Vec<u8>,
    covered: Vec<u8>,
}

/// The IP header of a packet with AH: as it travels, and with what routers change set to zero.
fn ip(six: bool, behind: usize) -> (Vec<u8>, Vec<u8>) {
    let addresses = bytes(if six { 32 } else { 8 }, 3);
    let (mut travels, changing): (Vec<u8>, &[(usize, u8)]) = if six {
        let length = (behind as u16).to_be_bytes();
        let start = [0x6b, 0xad, 0xbe, 0xef, length[0], length[1], 51, 63];
        // Class, flow label, hop limit.
        (start.into(), &[(0, 0x60), (1, 0), (2, 0), (3, 0), (7, 0)])
    } else {
        let length = ((20 + behind) as u16).to_be_bytes();
        let start = [
            0x45, 0xb9, length[0], length[1], 0x12, 0x34, 0x40, 0, 63, 51, 0xab, 0xcd,
        ];
        // Class, flags and offset, hop limit, checksum.
        let changing = &[(1, 0), (6, 0), (7, 0), (8, 0), (10, 0), (11, 0)];
        (start.into(), changing)
    };
    travels.extend(addresses);
    let mut counts = travels.clone();
    for (at, value) in changing {
        counts[*at] = *value;
    }
    (travels, counts)
}

fn made(integrity: Integrity, head: Head, six: bool, payload: usize) -> Made {
    let gmac = matches!(integrity, Integrity::AesGmac { .. });
    let iv = if gmac {
        bytes(8, head.sequence)
    } else {
        Vec::new()
    };
    let least = 12 + integrity.icv_length();
    let length = least.next_multiple_of(if six { 8 } else { 4 });
    let mut ah = vec![17, (length / 4 - 2) as u8, 0, 0];
    ah.extend(head.bytes());
    ah.extend(&iv);
    // The ICV proper as zeroes, and so is what fills the field.
    ah.resize(length, 0);
    let behind = [ah, bytes(payload, 8)].concat();
    let (travels, counts) = ip(six, behind.len());
    Made {
        header: travels.len(),
        packet: [&travels[..], &behind].concat(),
        iv,
        covered: [&counts[..], &behind, &head.high()].concat(),
    }
}

fn expected(integrity: Integrity, key: &[u8], made: &Made) -> Vec<u8> {
    if matches!(integrity, Integrity::AesGmac { .. }) {
        // GMAC is GCM without a text, whatever the key's length.
        let gcm = Encryption::AesGcm { bits: 128, icv: 16 };
        return second::combined(gcm, key, &made.iv, &made.covered, &[]).1;
    }
    let mut mac = second::mac(integrity, key, &made.covered);
    mac.truncate(integrity.icv_length());
    mac
}

fn compare(transform: &Transform, key: &[u8], six: bool, payload: usize, place: &str) {
    let suite = transform.suite();
    let integrity = suite.integrity.unwrap();
    let head = Head {
        spi: 0x1001,
        sequence: (payload as u64) << 31 | 0x1234,
        esn: payload % 2 == 1,
    };
    let mut made = made(integrity, head, six, payload);
    let expected = expected(integrity, key, &made);
    let describe = |bytes| Packet {
        bytes,
        header: made.header,
        sequence: head.sequence,
        esn: head.esn,
        end: End::Receiver,
    };
    let computed = icv(transform, &describe(&made.packet)).unwrap();
    assert_eq!(computed[..expected.len()], expected, "{place} {payload}");
    let field = icv_place(&suite);
    let at = made.header + field.start;
    assert_eq!(field.len(), expected.len(), "{place}");
    made.packet[at..at + expected.len()].copy_from_slice(&expected);
    let describe = |bytes| Packet {
        bytes,
        header: made.header,
        sequence: head.sequence,
        esn: head.esn,
        end: End::Receiver,
    };
    assert!(verify(transform, &describe(&made.packet)), "{place}");
    // The AH header, its ICV and the payload count bit by bit.
    let behind = (made.packet.len() - made.header) * 8;
    let bit = payload * 7919 % behind;
    let mut damaged = made.packet.clone();
    damaged[made.header + bit / 8] ^= 1 << (bit % 8);
    assert!(!verify(transform, &describe(&damaged)), "{place} bit {bit}");
}

//= test T10
//= test T41 (RFC 4302 section 3.3.3)
//= test T46 (RFC 4302 section 2.5.1)
//= test T151 (RFC 4543 section 4)
#[test]
fn every_suite_of_ah_at_every_size_equals_the_second_implementation() {
    let mut count = 0;
    for integrity in Integrity::ALL {
        let suite = Suite {
            encryption: Encryption::Null,
            integrity: Some(integrity),
        };
        let key = bytes(integrity.key_length(), 11);
        for backend in Backend::all() {
            let secret = Secret::new(key.clone());
            let transform = Transform::with(backend, suite, &Secret::default(), &secret).unwrap();
            for six in [false, true] {
                let place = format!("{integrity:?} {} six {six}", backend.name());
                for payload in (0..=1500).chain([2048, 4095, 9000]) {
                    compare(&transform, &key, six, payload, &place);
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 9 * 2 * 1504, "{count} packets");
}
