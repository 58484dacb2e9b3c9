//! Every algorithm through the packet format: published vectors, damaged packets, mixed batches.
//! The second implementation stands in `tests/crypto`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;

mod hmac_answers;

mod suites;

mod vectors;

use super::suite::Integrity;
use super::*;
use crate::limits::IV_LENGTH;

/// Every suite that is legal in ESP.
fn esp_suites() -> Vec<Suite> {
    let integrities = || Integrity::ALL.into_iter().map(Some).chain([None]);
    Encryption::ALL
        .into_iter()
        .flat_map(|encryption| {
            integrities().map(move |integrity| Suite {
                encryption,
                integrity,
            })
        })
        .filter(|suite| suite.check(Protocol::Esp).is_ok())
        .collect()
}

/// Bytes that differ from each other and repeat late.
pub(super) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// The keys of a suite, the same for the same seed.
pub(super) fn keys(suite: Suite, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let integrity = suite.integrity.map_or(0, Integrity::key_length);
    (
        bytes(suite.encryption.key_length(), seed),
        bytes(integrity, seed + 1),
    )
}

fn transform(suite: Suite, seed: u64) -> Transform {
    let (encryption, integrity) = keys(suite, seed);
    Transform::new(suite, &Secret::new(encryption), &Secret::new(integrity)).unwrap()
}

/// A packet before `seal`: SPI 0x1001, the IV, room for `payload`, the least trailer, room for
/// the ICV.
pub(super) fn prepared(suite: Suite, payload: usize, sequence: u64) -> Vec<u8> {
    let mut packet = vec![0, 0, 0x10, 1];
    packet.extend(&sequence.to_be_bytes()[4..]);
    packet.extend(&bytes(IV_LENGTH, sequence)[..suite.iv_length()]);
    packet.resize(packet.len() + payload, 0);
    packet.extend(trailer(suite, payload));
    packet.resize(packet.len() + suite.icv_length(), 0);
    packet
}

/// Padding 1, 2, 3 …, pad length, next header 4.
fn trailer(suite: Suite, payload: usize) -> Vec<u8> {
    let padding = (payload + 2).next_multiple_of(suite.alignment()) - payload - 2;
    let mut trailer: Vec<u8> = (1..=u8::try_from(padding).unwrap()).collect();
    trailer.extend([u8::try_from(padding).unwrap(), 4]);
    trailer
}

fn sealed(transform: &Transform, payload: &[u8], sequence: u64, esn: bool) -> Vec<u8> {
    let mut packet = prepared(transform.suite(), payload.len(), sequence);
    let destination = &mut packet[..];
    seal(&mut [SealJob {
        transform,
        source: payload,
        destination,
        sequence,
        esn,
    }]);
    packet
}

/// The text of an authentic packet.
fn opened(transform: &Transform, packet: &[u8], sequence: u64, esn: bool) -> Option<Vec<u8>> {
    let suite = transform.suite();
    let mut destination = vec![0xee; packet.len()];
    let mut jobs = [OpenJob {
        transform,
        source: packet,
        destination: &mut destination,
        sequence,
        esn,
        authentic: true,
    }];
    open(&mut jobs);
    let authentic = jobs[0].authentic;
    let around = 8 + suite.iv_length() + suite.icv_length();
    authentic.then(|| destination[..packet.len() - around].to_vec())
}
