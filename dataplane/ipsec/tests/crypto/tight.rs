//! An opened text may fill its destination to the last byte: what a kernel writes in whole blocks
//! must not reach beyond.

use ipsec::crypto::{OpenJob, open};

use crate::packet::{Head, esp_suites, sealed, transforms};
use crate::sweep::{bytes, keys, text};

/// What stands behind the destination.
const GUARD: u8 = 0xc5;

#[test]
fn nothing_is_written_behind_a_destination_of_the_texts_own_length() {
    let (mut opened, mut refused) = (0, 0);
    for suite in esp_suites() {
        let keys = keys(suite, 9);
        for (name, transform) in transforms(suite, &keys[0], &keys[1]) {
            for payload in (0..160).chain(500..540) {
                let text = text(suite, payload);
                let iv = &bytes(16, 3)[..suite.iv_length()];
                let packet = sealed(&transform, Head::PLAIN, iv, &text);
                let mut room = vec![GUARD; text.len() + 64];
                let (destination, behind) = room.split_at_mut(text.len());
                let mut jobs = [OpenJob {
                    transform: &transform,
                    source: &packet,
                    destination,
                    sequence: Head::PLAIN.sequence,
                    esn: false,
                    authentic: true,
                }];
                open(&mut jobs);
                let authentic = jobs[0].authentic;
                let place = format!("{suite:?} {name} {payload}");
                assert!(behind.iter().all(|byte| *byte == GUARD), "{place}");
                // Some want room for the ICV as well, and say so.
                if authentic {
                    assert_eq!(room[..text.len()], text, "{place}");
                    opened += 1;
                } else {
                    refused += 1;
                }
            }
        }
    }
    assert!(opened > 5000, "{opened} opened, {refused} refused");
}
