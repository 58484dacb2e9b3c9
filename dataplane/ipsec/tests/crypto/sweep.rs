//! Every suite at every size against the second implementation.

use ipsec::crypto::Transform;
use ipsec::crypto::suite::{Integrity, Suite};
use ipsec::limits::IV_LENGTH;

use crate::packet::{Head, esp_suites, opened, sealed, transforms};
use crate::second;

/// Bytes that differ from each other and repeat late.
pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// `payload` bytes, then padding 1, 2, 3 …, pad length, next header 4.
fn text(suite: Suite, payload: usize) -> Vec<u8> {
    let padding = (payload + 2).next_multiple_of(suite.alignment()) - payload - 2;
    let mut text = bytes(payload, 5);
    text.extend(1..=padding as u8);
    text.extend([padding as u8, 4]);
    text
}

fn keys(suite: Suite, seed: u64) -> [Vec<u8>; 2] {
    let integrity = suite.integrity.map_or(0, Integrity::key_length);
    [
        bytes(suite.encryption.key_length(), seed),
        bytes(integrity, seed + 1),
    ]
}

/// Seals, compares with the second implementation, opens; then one damaged bit must be found.
fn compare(name: &str, transform: &Transform, keys: &[Vec<u8>; 2], payload: usize, esn: bool) {
    let suite = transform.suite();
    let text = text(suite, payload);
    let head = Head {
        spi: 0x1001,
        sequence: (payload as u64) << 31 | 0x1234,
        esn,
    };
    let iv = &bytes(IV_LENGTH, head.sequence)[..suite.iv_length()];
    let mut packet = sealed(transform, head, iv, &text);
    let expected = second::packet(suite, [&keys[0], &keys[1]], head, iv, &text);
    assert!(packet == expected, "{suite:?} {name} {payload} sealed");
    let back = opened(transform, head, &packet);
    assert!(back == Some(text), "{suite:?} {name} {payload} opened");
    let bit = payload * 7919 % (packet.len() * 8);
    packet[bit / 8] ^= 1 << (bit % 8);
    let back = opened(transform, head, &packet);
    assert!(back.is_none(), "{suite:?} {name} {payload} bit {bit}");
}

fn sweep(lengths: impl Iterator<Item = (usize, bool)> + Clone) -> usize {
    let mut count = 0;
    for suite in esp_suites() {
        let keys = keys(suite, 9);
        for (name, transform) in transforms(suite, &keys[0], &keys[1]) {
            for (payload, esn) in lengths.clone() {
                compare(name, &transform, &keys, payload, esn);
                count += 1;
            }
        }
    }
    count
}

//= test T10
//= test T16
//= test T18
//= test T20
//= test T21
//= test T150
#[test]
fn every_suite_at_every_size_of_an_ethernet_packet_equals_the_second_implementation() {
    let lengths = (0..=1500).chain([1501, 2048, 4095, 4096, 8900, 9000, 9216]);
    // Odd sizes with ESN, even ones without; the whole product is the test below.
    let count = sweep(lengths.map(|length| (length, length % 2 == 1)));
    assert!(count >= 68 * 1508, "{count} packets");
}

/// `cargo test --profile ci -p ipsec --test crypto -- --ignored jumbo_frame`
#[test]
#[ignore = "minutes: every size to 9216, with and without ESN"]
fn every_suite_at_every_size_of_a_jumbo_frame_equals_the_second_implementation() {
    let lengths = (0..=9216).flat_map(|length| [(length, false), (length, true)]);
    let count = sweep(lengths);
    assert!(count >= 68 * 9217 * 2, "{count} packets");
}
