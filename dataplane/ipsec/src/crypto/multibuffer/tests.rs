//! Every form against the libraries: all lengths, alignments, keys, and what damage does.

use super::super::tests::{bytes, keys, prepared};
use super::super::{Backend, Keys, OpenJob, SealJob, Transform, open, seal};
use crate::crypto::suite::{Encryption, Integrity, Suite};
use crate::ip::mutable::Feed;
use crate::secret::Secret;

/// Every key and ICV length of RFC 4106, and of RFC 4543.
fn suites() -> impl Iterator<Item = Suite> {
    let lengths = [128, 192, 256].into_iter();
    let lengths = lengths.flat_map(|bits| [16, 12, 8].map(|icv| (bits, icv)));
    let gcm = lengths.map(|(bits, icv)| Encryption::AesGcm { bits, icv });
    let gmac = [128, 256].map(|bits| Encryption::AesGmac { bits });
    gcm.chain(gmac).map(|encryption| Suite {
        encryption,
        integrity: None,
    })
}

fn transform(backend: Backend, suite: Suite, seed: u64) -> Transform {
    let key = Secret::new(keys(suite, seed).0);
    Transform::with(backend, suite, &key, &Secret::default()).unwrap_or_else(|error| {
        panic!("{suite:?} {}: {error}", backend.name());
    })
}

/// The kernels that this CPU runs, and the library that judges them.
fn kernels() -> (Vec<Backend>, Backend) {
    let mut all: Vec<Backend> = Backend::all().collect();
    let library = all.pop().unwrap_or_else(Backend::chosen);
    assert_eq!(library.name(), "library");
    (all, library)
}

/// Seals `payload` at an odd place of a larger room, whose other bytes must stay.
fn sealed(transform: &Transform, payload: &[u8], sequence: u64, shift: usize) -> Vec<u8> {
    let packet = prepared(transform.suite(), payload.len(), sequence);
    let mut room = vec![0x5a; shift + packet.len() + 64];
    room[shift..shift + packet.len()].copy_from_slice(&packet);
    let mut source = vec![0xa5; 64 - shift];
    source.extend(payload);
    seal(&mut [SealJob {
        transform,
        source: &source[64 - shift..],
        destination: &mut room[shift..shift + packet.len()],
        sequence,
        esn: sequence % 2 == 1,
    }]);
    let packet = room[shift..shift + packet.len()].to_vec();
    room.drain(shift..shift + packet.len());
    assert!(room.iter().all(|byte| *byte == 0x5a), "{}", payload.len());
    packet
}

/// Opens a packet at an odd place; the text, or what a failure left in its place.
fn opened(
    transform: &Transform,
    packet: &[u8],
    sequence: u64,
    shift: usize,
) -> Result<Vec<u8>, Vec<u8>> {
    let mut source = vec![0xa5; shift];
    source.extend(packet);
    let mut room = vec![0x5a; 64 - shift + packet.len() + 64];
    let place = 64 - shift..64 - shift + packet.len();
    let mut jobs = [OpenJob {
        transform,
        source: &source[shift..],
        destination: &mut room[place.clone()],
        sequence,
        esn: sequence % 2 == 1,
        authentic: false,
    }];
    open(&mut jobs);
    let authentic = jobs[0].authentic;
    let text = packet.len() - 16 - transform.suite().icv_length();
    let mut found = room[place.clone()].to_vec();
    room.drain(place);
    assert!(room.iter().all(|byte| *byte == 0x5a), "{}", packet.len());
    if authentic {
        found.truncate(text);
        Ok(found)
    } else {
        Err(found)
    }
}

/// One length through a kernel and through the library, both ways.
fn compare(kernel: &Transform, library: &Transform, payload: &[u8], shift: usize, name: &str) {
    let (suite, length) = (kernel.suite(), payload.len());
    let sequence = (length as u64) << 31 | (length as u64 & 1) | 0x1230;
    let packet = sealed(kernel, payload, sequence, shift);
    let wanted = sealed(library, payload, sequence, 0);
    assert!(packet == wanted, "{name} {suite:?} {length} {shift}");
    let text = opened(kernel, &packet, sequence, shift);
    let wanted = opened(library, &packet, sequence, 0);
    assert!(text.is_ok(), "{name} {suite:?} {length} {shift}");
    assert!(text == wanted, "{name} {suite:?} {length} {shift}");
}

//= test T10
//= test T16
#[test]
fn every_length_equals_the_library() {
    let (kernels, library) = kernels();
    let text = bytes(9216, 7);
    for backend in kernels {
        for suite in suites() {
            let kernel = transform(backend, suite, 11);
            let library = transform(library, suite, 11);
            // 192 bits: the library's slow road.
            let every = !matches!(suite.encryption, Encryption::AesGcm { bits: 192, .. });
            let step = if every && suite.icv_length() == 16 {
                1
            } else {
                29
            };
            for length in (0..600).chain((600..=9216).step_by(step)) {
                compare(
                    &kernel,
                    &library,
                    &text[..length],
                    length % 64,
                    backend.name(),
                );
            }
        }
    }
}

#[test]
fn every_alignment_equals_the_library() {
    let (kernels, library) = kernels();
    let text = bytes(1400, 8);
    for backend in kernels {
        for suite in suites() {
            let kernel = transform(backend, suite, 12);
            let library = transform(library, suite, 12);
            for shift in 0..64 {
                for length in [
                    0, 1, 14, 46, 62, 63, 126, 127, 128, 129, 254, 255, 1398, 1400,
                ] {
                    compare(&kernel, &library, &text[..length], shift, backend.name());
                }
            }
        }
    }
}

/// Traffic flow confidentiality: much that is not payload stands behind it.
#[test]
fn what_stands_behind_the_payload_is_sealed_too() {
    let (kernels, library) = kernels();
    for backend in kernels {
        for suite in suites() {
            let kernel = transform(backend, suite, 13);
            let library = transform(library, suite, 13);
            for (payload, behind) in [(0, 514), (1, 127), (100, 1300), (128, 2), (300, 84)] {
                let make = |transform: &Transform| {
                    let mut packet = prepared(suite, payload + behind - 2, 5);
                    let text = bytes(payload + behind, 3);
                    packet[16..16 + text.len()].copy_from_slice(&text);
                    seal(&mut [SealJob {
                        transform,
                        source: &bytes(payload, 4),
                        destination: &mut packet,
                        sequence: 5,
                        esn: true,
                    }]);
                    packet
                };
                assert_eq!(make(&kernel), make(&library), "{payload} {behind}");
            }
        }
    }
}

//= test T31
//= test T83
#[test]
fn damage_anywhere_leaves_nothing_but_zeros() {
    for backend in kernels().0 {
        for suite in suites() {
            let transform = transform(backend, suite, 14);
            for length in [0, 40, 130, 400] {
                let packet = sealed(&transform, &bytes(length, 9), 3, 0);
                for bit in (0..packet.len() * 8).step_by(5) {
                    let mut damaged = packet.clone();
                    damaged[bit / 8] ^= 1 << (bit % 8);
                    let left = opened(&transform, &damaged, 3, 1);
                    let zeros = vec![0; packet.len()];
                    assert_eq!(left, Err(zeros), "{suite:?} {length} bit {bit}");
                }
            }
        }
    }
}

#[test]
fn the_best_form_is_chosen() {
    assert_eq!(Backend::all().next(), Some(Backend::chosen()));
}

/// A burst as traffic brings it: keys and lengths in any order, some packets damaged, some without
/// the room or the length that they want.
struct Mixed {
    payloads: Vec<Vec<u8>>,
    keys: Vec<usize>,
    missing: Vec<usize>,
}

impl Mixed {
    fn new(seed: u64) -> Self {
        let random = bytes(4 * 64, seed);
        let payloads = (random.chunks_exact(4)).map(|it| match it[0] % 4 {
            0 => usize::from(it[1] % 64),
            1 => usize::from(it[1]) + usize::from(it[2]) * 5,
            2 => usize::from(it[1]) * 32,
            _ => usize::from(it[1]),
        });
        Self {
            payloads: payloads.map(|length| bytes(length, seed)).collect(),
            keys: random.iter().map(|it| usize::from(it % 5)).collect(),
            missing: random.iter().map(|it| usize::from(*it < 12) * 3).collect(),
        }
    }

    /// Packets sealed, all in one burst or each in one of its own.
    fn sealed(&self, transforms: &[Transform], burst: usize) -> Vec<Vec<u8>> {
        let suite = transforms[0].suite();
        let rooms = self.payloads.iter().zip(&self.missing);
        let rooms = rooms.map(|(payload, missing)| {
            let mut room = prepared(suite, payload.len(), 9);
            room.truncate(room.len() - missing);
            room
        });
        let mut rooms: Vec<_> = rooms.collect();
        let jobs = self.payloads.iter().zip(&mut rooms).zip(&self.keys);
        let jobs = jobs.map(|((source, destination), key)| SealJob {
            transform: &transforms[*key],
            source,
            destination,
            sequence: 9,
            esn: key % 2 == 0,
        });
        let mut jobs: Vec<_> = jobs.collect();
        jobs.chunks_mut(burst).for_each(seal);
        rooms
    }

    /// Texts, and zeros for what does not open.
    fn opened(&self, transforms: &[Transform], packets: &[Vec<u8>], burst: usize) -> Vec<Vec<u8>> {
        let mut rooms: Vec<_> = packets.iter().map(|it| vec![0x5a; it.len()]).collect();
        let jobs = packets.iter().zip(&mut rooms).zip(&self.keys);
        let jobs = jobs.map(|((source, destination), key)| OpenJob {
            transform: &transforms[*key],
            source,
            destination,
            sequence: 9,
            esn: key % 2 == 0,
            authentic: false,
        });
        let mut jobs: Vec<_> = jobs.collect();
        jobs.chunks_mut(burst).for_each(open);
        let authentic: Vec<_> = jobs.iter().map(|job| job.authentic).collect();
        for (room, authentic) in rooms.iter_mut().zip(authentic) {
            let text = room
                .len()
                .saturating_sub(16 + transforms[0].suite().icv_length());
            room.truncate(if authentic { text } else { 0 });
        }
        rooms
    }
}

#[test]
fn a_mixed_burst_is_what_the_library_makes_of_its_packets_alone() {
    let (kernels, library) = kernels();
    for backend in kernels {
        for (seed, suite) in (1..).zip(suites()) {
            let expand = |backend| (0..5).map(move |key| transform(backend, suite, 20 + key));
            let own: Vec<_> = expand(backend).collect();
            let library: Vec<_> = expand(library).collect();
            let mixed = Mixed::new(seed);
            let mut packets = mixed.sealed(&own, 64);
            assert!(packets == mixed.sealed(&library, 1), "{suite:?}");
            for (index, packet) in packets.iter_mut().enumerate().filter(|it| it.0 % 7 == 3) {
                let bit = index * 131 % (packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            let texts = mixed.opened(&own, &packets, 64);
            assert!(texts == mixed.opened(&library, &packets, 1), "{suite:?}");
            assert!(texts.iter().any(Vec::is_empty), "{suite:?}");
        }
    }
}

#[test]
fn every_length_at_every_alignment_equals_the_library() {
    let (kernels, library) = kernels();
    let text = bytes(9216, 15);
    for backend in kernels {
        for suite in suites() {
            let kernel = transform(backend, suite, 16);
            let library = transform(library, suite, 16);
            for length in 0..=9216 {
                for shift in [length % 64, (length / 64 + 13) % 64] {
                    compare(&kernel, &library, &text[..length], shift, backend.name());
                }
            }
        }
    }
}

#[test]
fn the_code_of_each_mode_of_aes_is_named() {
    for backend in Backend::all() {
        for family in ["aes-gcm", "aes-gmac", "aes-cbc", "aes-ctr"] {
            let mut families = backend.by_family().into_iter();
            let code = families.find(|(name, _)| *name == family);
            assert_eq!(code, Some((family, backend.name())));
        }
    }
}

/// AES-GMAC of AH over a message in pieces of `size` bytes.
fn tag(transform: &Transform, message: &[u8], size: usize) -> Option<[u8; 16]> {
    let iv = bytes(8, message.len() as u64);
    let mut pieces = |feed: &mut Feed<'_>| message.chunks(size).for_each(&mut *feed);
    match &transform.keys {
        Keys::Gmac(key) => key.over(&iv, &mut pieces),
        Keys::AhGmac(key) => key.over(&iv, &mut pieces),
        _ => None,
    }
}

/// AH gives its MAC the packet in pieces.
//= test T151
#[test]
fn gmac_over_pieces_is_what_the_library_makes_of_all() {
    let (kernels, library) = kernels();
    let text = bytes(9216, 17);
    for (backend, bits) in kernels.into_iter().flat_map(|it| [(it, 128), (it, 256)]) {
        let suite = Suite {
            encryption: Encryption::Null,
            integrity: Some(Integrity::AesGmac { bits }),
        };
        let key = Secret::new(bytes(usize::from(bits) / 8 + 4, 18));
        let made = |backend| Transform::with(backend, suite, &Secret::default(), &key).ok();
        let (Some(kernel), Some(library)) = (made(backend), made(library)) else {
            panic!("{} {bits}", backend.name());
        };
        for length in (17..700).chain((700..=9216).step_by(41)) {
            let message = &text[..length];
            let wanted = tag(&library, message, length);
            assert!(wanted.is_some(), "{length}");
            for size in [1, 7, 16, 20, 127, 128, 129, 144, 145, 161, 300, length] {
                let made = tag(&kernel, message, size);
                assert!(made == wanted, "{} {bits} {length} {size}", backend.name());
            }
        }
        for length in 0..17 {
            assert_eq!(tag(&kernel, &text[..length], 16), None, "{length}");
        }
    }
}
