//! Damaged packets, odd lengths, mixed batches.

use super::*;

/// Nothing that was sealed may show after a failure.
const MARK: &[u8] = b"the plaintext of this packet must not be seen";

fn shows(bytes: &[u8]) -> bool {
    bytes
        .windows(8)
        .any(|window| MARK.windows(8).any(|mark| mark == window))
}

//= test T31
//= test T83
#[test]
fn every_flipped_bit_is_found() {
    for suite in esp_suites() {
        let transform = transform(suite, 3);
        for esn in [false, true] {
            let sequence = 0x0000_0005_0000_0009;
            let packet = sealed(&transform, MARK, sequence, esn);
            let hides = suite.encryption != Encryption::Null
                && !matches!(suite.encryption, Encryption::AesGmac { .. });
            assert_eq!(shows(&packet), !hides);
            assert!(opened(&transform, &packet, sequence, esn).is_some());
            for bit in 0..packet.len() * 8 {
                let mut damaged = packet.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let mut destination = vec![0; packet.len()];
                let mut jobs = [OpenJob {
                    transform: &transform,
                    source: &damaged,
                    destination: &mut destination,
                    sequence,
                    esn,
                    authentic: true,
                }];
                open(&mut jobs);
                assert!(!jobs[0].authentic, "{suite:?} bit {bit}");
                assert!(!shows(&destination), "{suite:?} bit {bit}");
            }
        }
    }
}

//= test T05
//= test T82
#[test]
fn the_high_half_counts_with_esn_alone() {
    for suite in esp_suites() {
        let transform = transform(suite, 4);
        let packet = sealed(&transform, MARK, 0x7_0000_0001, true);
        assert!(opened(&transform, &packet, 0x7_0000_0001, true).is_some());
        assert!(
            opened(&transform, &packet, 0x8_0000_0001, true).is_none(),
            "{suite:?}"
        );
        assert!(
            opened(&transform, &packet, 0x6_0000_0001, true).is_none(),
            "{suite:?}"
        );
        assert!(
            opened(&transform, &packet, 0x7_0000_0001, false).is_none(),
            "{suite:?}"
        );
        // The 32 bits on the wire are the same, so is the length.
        let plain = sealed(&transform, MARK, 0x7_0000_0001, false);
        assert_eq!(plain.len(), packet.len());
        assert_eq!(plain[..8], packet[..8]);
        assert!(opened(&transform, &plain, 1, false).is_some());
        assert!(
            opened(&transform, &plain, 0x7_0000_0001, true).is_none(),
            "{suite:?}"
        );
    }
}

#[test]
fn no_length_of_a_packet_panics_and_none_but_the_right_one_opens() {
    for suite in esp_suites() {
        let transform = transform(suite, 5);
        let packet = sealed(&transform, MARK, 1, false);
        for length in 0..packet.len() {
            assert_eq!(
                opened(&transform, &packet[..length], 1, false),
                None,
                "{suite:?}"
            );
        }
        for more in 1..40 {
            let longer = [&packet[..], &vec![0; more]].concat();
            assert_eq!(opened(&transform, &longer, 1, false), None, "{suite:?}");
        }
    }
}

#[test]
fn no_length_of_a_destination_panics() {
    for suite in esp_suites() {
        let transform = transform(suite, 6);
        let packet = sealed(&transform, MARK, 1, false);
        let text = packet.len() - 8 - suite.iv_length() - suite.icv_length();
        for length in 0..packet.len() {
            let mut destination = vec![0; length];
            let mut jobs = [OpenJob {
                transform: &transform,
                source: &packet,
                destination: &mut destination,
                sequence: 1,
                esn: false,
                authentic: true,
            }];
            open(&mut jobs);
            assert_eq!(jobs[0].authentic, length >= text, "{suite:?} {length}");
        }
    }
}

#[test]
fn a_destination_that_does_not_fit_is_zeroed_whole() {
    for suite in esp_suites() {
        let transform = transform(suite, 7);
        let right = prepared(suite, MARK.len(), 1).len();
        for length in 0..right {
            let mut destination = vec![0xaa; length];
            seal(&mut [SealJob {
                transform: &transform,
                source: MARK,
                destination: &mut destination,
                sequence: 1,
                esn: false,
            }]);
            assert!(
                destination.iter().all(|byte| *byte == 0),
                "{suite:?} {length}"
            );
        }
    }
}

#[test]
fn a_mixed_batch_is_what_its_packets_are_alone() {
    let suites = esp_suites();
    let transforms: Vec<_> = (0..)
        .zip(&suites)
        .map(|(seed, it)| transform(*it, seed))
        .collect();
    let payloads: Vec<_> = (0..200).map(|index| bytes(index * 7 % 700, 11)).collect();
    let order = |index: usize| match index % 3 {
        // Runs of one suite, singles, and back and forth.
        0 => index / 9 % transforms.len(),
        1 => index * 31 % transforms.len(),
        _ => index % 2 * 40,
    };
    let mut sequence = 0;
    let mut packets: Vec<_> = (0..payloads.len())
        .map(|index| {
            sequence += 1;
            prepared(suites[order(index)], payloads[index].len(), sequence)
        })
        .collect();
    let mut jobs: Vec<_> = (1..)
        .zip(packets.iter_mut().zip(&payloads).enumerate())
        .map(|(sequence, (index, (packet, payload)))| SealJob {
            transform: &transforms[order(index)],
            source: payload,
            destination: packet,
            sequence,
            esn: index % 2 == 0,
        })
        .collect();
    seal(&mut jobs);
    for (index, packet) in packets.iter_mut().enumerate() {
        let transform = &transforms[order(index)];
        let alone = sealed(
            transform,
            &payloads[index],
            index as u64 + 1,
            index % 2 == 0,
        );
        assert_eq!(*packet, alone, "{index}");
        if index % 5 == 0 {
            let last = packet.len() - 1;
            packet[last] ^= 1;
        }
    }
    let mut texts: Vec<_> = packets.iter().map(|packet| vec![0; packet.len()]).collect();
    let mut jobs: Vec<_> = (1..)
        .zip(texts.iter_mut().zip(&packets).enumerate())
        .map(|(sequence, (index, (text, packet)))| OpenJob {
            transform: &transforms[order(index)],
            source: packet,
            destination: text,
            sequence,
            esn: index % 2 == 0,
            authentic: index % 2 == 0,
        })
        .collect();
    open(&mut jobs);
    for (index, job) in jobs.iter().enumerate() {
        assert_eq!(job.authentic, index % 5 != 0, "{index}");
        if job.authentic {
            assert_eq!(job.destination[..payloads[index].len()], payloads[index]);
        }
    }
}

#[test]
fn empty_batches_are_fine() {
    seal(&mut []);
    open(&mut []);
}
