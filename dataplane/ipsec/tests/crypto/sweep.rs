//! Every suite at every size against the second implementation.

use std::sync::Mutex;

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
pub(crate) fn text(suite: Suite, payload: usize) -> Vec<u8> {
    let padding = (payload + 2).next_multiple_of(suite.alignment()) - payload - 2;
    let mut text = bytes(payload, 5);
    text.extend(1..=padding as u8);
    text.extend([padding as u8, 4]);
    text
}

pub(crate) fn keys(suite: Suite, seed: u64) -> [Vec<u8>; 2] {
    let integrity = suite.integrity.map_or(0, Integrity::key_length);
    [
        bytes(suite.encryption.key_length(), seed),
        bytes(integrity, seed + 1),
    ]
}

/// A packet as it is to be.
struct Wanted {
    head: Head,
    text: Vec<u8>,
    /// By the second implementation.
    sealed: Vec<u8>,
    iv: Vec<u8>,
}

impl Wanted {
    fn new(suite: Suite, keys: &[Vec<u8>; 2], payload: usize, esn: bool) -> Self {
        let text = text(suite, payload);
        let head = Head {
            spi: 0x1001,
            sequence: (payload as u64) << 31 | 0x1234,
            esn,
        };
        let iv = bytes(IV_LENGTH, head.sequence)[..suite.iv_length()].to_vec();
        let sealed = second::packet(suite, [&keys[0], &keys[1]], head, &iv, &text);
        Self {
            head,
            text,
            sealed,
            iv,
        }
    }

    /// Seals, compares with the second implementation, opens; then one damaged bit must be found.
    fn compare(&self, name: &str, transform: &Transform, payload: usize) {
        let suite = transform.suite();
        let mut packet = sealed(transform, self.head, &self.iv, &self.text);
        assert!(packet == self.sealed, "{suite:?} {name} {payload} sealed");
        let back = opened(transform, self.head, &packet);
        let same = back.as_ref() == Some(&self.text);
        assert!(same, "{suite:?} {name} {payload} opened");
        let bit = payload * 7919 % (packet.len() * 8);
        packet[bit / 8] ^= 1 << (bit % 8);
        let back = opened(transform, self.head, &packet);
        assert!(back.is_none(), "{suite:?} {name} {payload} bit {bit}");
    }
}

/// The suites one after the other, two at a time: how many packets were compared.
fn sweep(lengths: impl Iterator<Item = (usize, bool)> + Clone + Sync) -> usize {
    let suites = Mutex::new(esp_suites().into_iter());
    let work = || {
        let mut count = 0;
        loop {
            let next = suites.lock().unwrap().next();
            let Some(suite) = next else {
                return count;
            };
            let keys = keys(suite, 9);
            let transforms = transforms(suite, &keys[0], &keys[1]);
            for (payload, esn) in lengths.clone() {
                // Once for all that this machine has for the suite: it is what takes the time.
                let wanted = Wanted::new(suite, &keys, payload, esn);
                for (name, transform) in &transforms {
                    wanted.compare(name, transform, payload);
                    count += 1;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work() + other.join().unwrap()
    })
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

/// Minutes if optimised: CONTRIBUTING.md has the command.
#[test]
#[ignore = "minutes: every size to 9216, with and without ESN"]
fn every_suite_at_every_size_of_a_jumbo_frame_equals_the_second_implementation() {
    let lengths = (0..=9216).flat_map(|length| [(length, false), (length, true)]);
    let count = sweep(lengths);
    eprintln!("{count} packets");
    assert!(count >= 68 * 9217 * 2, "{count} packets");
}
