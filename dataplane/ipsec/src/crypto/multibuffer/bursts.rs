//! Bursts through the kernels of the separate suites, against the libraries packet by packet: all
//! lengths, alignments, keys, mixtures, and what damage does.

use super::super::mac::{self, Mac, Signed};
use super::super::suite::{Encryption, Integrity, Protocol, Suite};
use super::super::tests::{bytes, keys, prepared};
use super::super::{Backend, OpenJob, SealJob, Transform, open, seal};
use super::{CbcKey, CtrKey, HmacKey, Sha1};
use crate::limits::BATCH;
use crate::secret::Secret;

/// What a room holds where nobody may write.
pub(super) const GUARD: u8 = 0x5a;

/// Those suites of which at least one half has a kernel, each half with each.
pub(super) fn suites() -> Vec<Suite> {
    let lengths = [128, 192, 256];
    let ciphers = lengths.map(|bits| Encryption::AesCbc { bits }).into_iter();
    let ciphers = ciphers.chain(lengths.map(|bits| Encryption::AesCtr { bits }));
    let ciphers = ciphers.chain([Encryption::Null]);
    let macs = [Integrity::Sha1_96, Integrity::Sha256_128];
    let both = ciphers.flat_map(|cipher| macs.map(|mac| suite(cipher, mac)));
    let halves = [
        suite(Encryption::AesCtr { bits: 128 }, Integrity::Sha512_256),
        suite(Encryption::AesCbc { bits: 128 }, Integrity::Md5_96),
    ];
    both.chain(halves).collect()
}

fn suite(encryption: Encryption, integrity: Integrity) -> Suite {
    Suite {
        encryption,
        integrity: Some(integrity),
    }
}

pub(super) fn transform(backend: Backend, suite: Suite, seed: u64) -> Transform {
    let (encryption, integrity) = keys(suite, seed);
    let (encryption, integrity) = (Secret::new(encryption), Secret::new(integrity));
    Transform::with(backend, suite, &encryption, &integrity).unwrap_or_else(|error| {
        panic!("{suite:?} {}: {error}", backend.name());
    })
}

/// The kernels that this CPU runs, and the libraries that judge them.
pub(super) fn backends() -> (Vec<Backend>, Backend) {
    let mut all: Vec<Backend> = Backend::all().collect();
    let library = all.pop().unwrap_or_else(Backend::chosen);
    assert_eq!(library.name(), "library");
    (all, library)
}

/// A packet to be.
struct One {
    /// Which of the SAs.
    sa: usize,
    payload: Vec<u8>,
    /// Bytes behind the payload besides what the trailer wants: traffic flow confidentiality.
    more: usize,
    /// Where in their rooms source and destination begin.
    shift: usize,
    /// A bit to turn over on the way.
    damage: Option<usize>,
}

impl One {
    const fn plain(sa: usize, payload: Vec<u8>) -> Self {
        Self {
            sa,
            payload,
            more: 0,
            shift: 0,
            damage: None,
        }
    }
}

/// Number and ESN of the packet at this place.
pub(super) const fn numbered(index: usize) -> (u64, bool) {
    let index = index as u64;
    (index << 31 | index, index % 3 == 1)
}

/// The packets in rooms, in which all other bytes must stay.
fn sealed(sas: &[Transform], burst: &[One]) -> Vec<Vec<u8>> {
    let rooms = burst.iter().enumerate().map(|(index, one)| {
        let suite = sas[one.sa].suite();
        let mut packet = prepared(suite, one.payload.len() + one.more, numbered(index).0);
        let text = 8 + suite.iv_length() + one.payload.len();
        packet[text..text + one.more].copy_from_slice(&bytes(one.more, 77));
        [vec![GUARD; one.shift], packet, vec![GUARD; 64]].concat()
    });
    let mut rooms: Vec<Vec<u8>> = rooms.collect();
    let sources = burst.iter().map(|one| {
        let room = vec![0; 63 - one.shift % 64];
        [room, one.payload.clone()].concat()
    });
    let sources: Vec<Vec<u8>> = sources.collect();
    let jobs = burst.iter().zip(&mut rooms).zip(&sources).enumerate();
    let jobs = jobs.map(|(index, ((one, room), source))| {
        let end = room.len() - 64;
        SealJob {
            transform: &sas[one.sa],
            source: &source[source.len() - one.payload.len()..],
            destination: &mut room[one.shift..end],
            sequence: numbered(index).0,
            esn: numbered(index).1,
        }
    });
    seal(&mut jobs.collect::<Vec<_>>());
    let packets = rooms.into_iter().zip(burst).map(|(mut room, one)| {
        let packet: Vec<u8> = room.drain(one.shift..room.len() - 64).collect();
        assert!(room.iter().all(|byte| *byte == GUARD), "{}", packet.len());
        packet
    });
    packets.collect()
}

/// The texts of those that are authentic. The others' rooms hold what they held.
fn opened(sas: &[Transform], burst: &[One], packets: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
    let sources = burst.iter().zip(packets).map(|(one, packet)| {
        let mut packet = packet.clone();
        if let Some(bit) = one.damage {
            let bit = bit % (packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        [vec![0; one.shift], packet].concat()
    });
    let sources: Vec<Vec<u8>> = sources.collect();
    let mut rooms: Vec<Vec<u8>> = packets
        .iter()
        .map(|packet| vec![GUARD; packet.len() + 64])
        .collect();
    let jobs = burst.iter().zip(&mut rooms).zip(&sources).enumerate();
    let jobs = jobs.map(|(index, ((one, room), source))| {
        let source = &source[one.shift..];
        let start = 63 - one.shift % 64;
        OpenJob {
            transform: &sas[one.sa],
            source,
            destination: &mut room[start..start + source.len()],
            sequence: numbered(index).0,
            esn: numbered(index).1,
            authentic: index % 2 == 0,
        }
    });
    let mut jobs: Vec<_> = jobs.collect();
    open(&mut jobs);
    let authentic: Vec<bool> = jobs.iter().map(|job| job.authentic).collect();
    let texts = authentic.into_iter().zip(burst).zip(rooms).zip(packets);
    let texts = texts.map(|(((authentic, one), mut room), packet)| {
        let suite = sas[one.sa].suite();
        let text = packet.len() - 8 - suite.iv_length() - suite.icv_length();
        let start = 63 - one.shift % 64;
        let written = if authentic || suite.encryption.is_aead() {
            packet.len()
        } else {
            0
        };
        let text: Vec<u8> = room[start..start + text].to_vec();
        room.drain(start..start + written);
        assert!(room.iter().all(|byte| *byte == GUARD), "{}", packet.len());
        authentic.then_some(text)
    });
    texts.collect()
}

/// A burst through a kernel, and the same packets one by one through the libraries.
fn compare(kernel: &[Transform], library: &[Transform], burst: &[One], name: &str) {
    let packets = sealed(kernel, burst);
    let texts = opened(kernel, burst, &packets);
    let suite = |one: &One| kernel[one.sa].suite();
    for (index, (one, packet)) in burst.iter().zip(&packets).enumerate() {
        let place = || format!("{name} {index} {:?} {}", suite(one), one.payload.len());
        // Alone, but at its place in the numbers: the others are of no length and go to SA 0.
        let alone = sealed_alone(&library[one.sa], one, index);
        assert!(*packet == alone, "{} sealed", place());
        assert_eq!(texts[index].is_some(), one.damage.is_none(), "{}", place());
        if let Some(text) = &texts[index] {
            let payload = &text[..one.payload.len()];
            assert!(payload == one.payload, "{} opened", place());
            assert_eq!(text.last(), Some(&4), "{}", place());
        }
    }
}

fn sealed_alone(transform: &Transform, one: &One, index: usize) -> Vec<u8> {
    let (sequence, esn) = numbered(index);
    let suite = transform.suite();
    let mut packet = prepared(suite, one.payload.len() + one.more, sequence);
    let text = 8 + suite.iv_length() + one.payload.len();
    packet[text..text + one.more].copy_from_slice(&bytes(one.more, 77));
    seal(&mut [SealJob {
        transform,
        source: &one.payload,
        destination: &mut packet,
        sequence,
        esn,
    }]);
    packet
}

/// Packets of all `lengths` in bursts of `count`, over seven SAs; every ninth is damaged.
fn sweep(lengths: impl Iterator<Item = usize>, count: usize, shift: impl Fn(usize) -> usize) {
    let (kernels, library) = backends();
    let lengths: Vec<usize> = lengths.collect();
    for backend in kernels {
        for suite in suites() {
            let sas = |backend| (0..7).map(move |seed| transform(backend, suite, seed * 2));
            let (kernel, library): (Vec<_>, Vec<_>) =
                (sas(backend).collect(), sas(library).collect());
            for lengths in lengths.chunks(count) {
                let burst = lengths.iter().map(|length| One {
                    shift: shift(*length),
                    damage: (length % 9 == 4).then_some(length * 7919),
                    ..One::plain(length * 5 % 7, bytes(*length, *length as u64))
                });
                compare(
                    &kernel,
                    &library,
                    &burst.collect::<Vec<_>>(),
                    backend.name(),
                );
            }
        }
    }
}

//= test T10
//= test T31
#[test]
fn every_length_in_ragged_bursts_equals_the_library() {
    sweep((0..700).chain((700..=9216).step_by(37)), 37, |length| {
        length % 64
    });
}

#[test]
fn every_alignment_equals_the_library() {
    for alignment in 0..64 {
        let lengths = [0, 1, 13, 14, 15, 46, 61, 62, 63, 128, 129, 130, 254, 700];
        sweep(lengths.into_iter(), 14, |_| alignment);
    }
}

/// One packet, two, … more than a batch, of one length and of one key.
#[test]
fn bursts_of_every_size_equal_the_library() {
    let (kernels, library) = backends();
    for backend in kernels {
        for suite in suites() {
            let kernel = [transform(backend, suite, 3)];
            let library = [transform(library, suite, 3)];
            for count in (1..=20).chain([31, 32, 33, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 5]) {
                for length in [40, 300] {
                    let burst = (0..count).map(|index| One::plain(0, bytes(length, index as u64)));
                    compare(
                        &kernel,
                        &library,
                        &burst.collect::<Vec<_>>(),
                        backend.name(),
                    );
                }
            }
        }
    }
}

/// Traffic flow confidentiality: much that is not payload stands behind it.
#[test]
fn what_stands_behind_the_payload_is_sealed_too() {
    let (kernels, library) = backends();
    for backend in kernels {
        for suite in suites() {
            let kernel = [transform(backend, suite, 3)];
            let library = [transform(library, suite, 3)];
            let burst = (0..40).map(|index| One {
                more: index * 61 % 900,
                ..One::plain(0, bytes(index * 97 % 800, index as u64))
            });
            compare(
                &kernel,
                &library,
                &burst.collect::<Vec<_>>(),
                backend.name(),
            );
        }
    }
}

/// Bursts of any suites that ESP has, as they come.
//= test T31
//= test T83
#[test]
fn mixed_bursts_equal_their_packets_one_by_one() {
    let integrities = || Integrity::ALL.into_iter().map(Some).chain([None]);
    let all = Encryption::ALL.into_iter().flat_map(|encryption| {
        integrities().map(move |integrity| Suite {
            encryption,
            integrity,
        })
    });
    let all: Vec<Suite> = all.filter(|it| it.check(Protocol::Esp).is_ok()).collect();
    let (kernels, library) = backends();
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    for backend in kernels {
        let sas = |backend| {
            let suites = all.iter().chain(&all).zip(0..);
            suites.map(move |(suite, seed)| transform(backend, *suite, seed))
        };
        let (kernel, library): (Vec<_>, Vec<_>) = (sas(backend).collect(), sas(library).collect());
        for _ in 0..150 {
            // Few SAs or many, short packets or long ones.
            let (few, long) = (1 + random(kernel.len()), 1 + random(2000));
            let first = random(kernel.len());
            let burst = (0..1 + random(2 * BATCH)).map(|_| {
                let sa = (first + random(few)) % kernel.len();
                let length = random(long);
                One {
                    more: if random(8) == 0 { random(300) } else { 0 },
                    shift: random(64),
                    damage: (random(4) == 0).then(|| random(1 << 20)),
                    ..One::plain(sa, bytes(length, random(1000) as u64))
                }
            });
            compare(
                &kernel,
                &library,
                &burst.collect::<Vec<_>>(),
                backend.name(),
            );
        }
    }
}

/// AH gives its MAC the packet in pieces.
#[test]
fn a_mac_over_pieces_is_the_mac_over_all() {
    let (kernels, library) = backends();
    for backend in kernels {
        for integrity in [Integrity::Sha1_96, Integrity::Sha256_128] {
            let key = bytes(integrity.key_length(), 5);
            let made = |backend| Mac::new(backend, integrity, &key).ok();
            let (Some(mac), Some(library)) = (made(backend), made(library)) else {
                panic!("{integrity:?}");
            };
            for length in 0..400 {
                let message = bytes(length, 6);
                let over = |mac: &Mac, size: usize| {
                    mac.over(&mut |feed| message.chunks(size).for_each(&mut *feed))
                };
                let wanted = over(&library, 1000);
                let wanted = &wanted[..integrity.icv_length()];
                for size in [1, 3, 20, 60, 64, 65, 130, 1000] {
                    let made = over(&mac, size);
                    assert_eq!(
                        made[..wanted.len()],
                        *wanted,
                        "{integrity:?} {length} {size}"
                    );
                }
                let (packet, high) = match message.split_last_chunk() {
                    Some((packet, high)) => (packet, Some(*high)),
                    None => (&message[..], None),
                };
                let signed = std::iter::once(Signed {
                    mac: &mac,
                    packet,
                    high,
                });
                let made = mac::tags(&signed.collect());
                assert_eq!(made[0][..wanted.len()], *wanted, "{integrity:?} {length}");
            }
        }
    }
}

/// An idle pair of SAs is to take 2.5 KiB in all; its keys take less than half of that, even of
/// AES-256 and with both directions of the cipher on both sides.
#[test]
fn keys_of_a_pair_take_little() {
    let one = size_of::<CbcKey<15>>() + size_of::<HmacKey<Sha1>>();
    assert!(2 * one <= 1152, "{one} bytes for each SA");
    assert!(size_of::<CtrKey>() <= size_of::<CbcKey<11>>());
}
