//! `seal` and `open` at lengths of the fuzzer's choice: nothing is written beyond a destination,
//! what was sealed opens, what was damaged does not, and no length panics.

use ipsec::crypto::suite::{Encryption, Integrity, Protocol, Suite};
use ipsec::crypto::{Backend, OpenJob, SealJob, Transform, open, seal};
use ipsec::secret::Secret;

use crate::bytes::Bytes;

/// What surrounds a buffer, and how much of it.
const GUARD: u8 = 0xc5;
const GUARDS: usize = 64;

/// Packets of one burst, at most: more than any kernel takes side by side.
const BURST: usize = 20;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let count = suites().len() as u8;
    (0..count)
        .flat_map(|suite| {
            let long = [suite, 1, 5, 220, 0, 9, 1, 2, 3];
            let short = [(suite + 7) % count, 0, 0, 40, 0, 1, 9, 9, 9];
            // Many of one suite, of lengths that differ.
            let many = (0..BURST as u8).flat_map(|index| {
                let [high, low] = (u16::from(index) * 293 % 1500).to_be_bytes();
                [suite, 1, high, low, 0, index, 4, 5, index]
            });
            let few = [&[suite][..], &long, &short, &long].concat();
            [few, [suite].into_iter().chain(many).collect()]
        })
        .collect()
}

fn suites() -> Vec<Suite> {
    let integrities = || Integrity::ALL.into_iter().map(Some).chain([None]);
    let pairs = Encryption::ALL.into_iter().flat_map(|encryption| {
        integrities().map(move |integrity| Suite {
            encryption,
            integrity,
        })
    });
    pairs
        .filter(|suite| suite.check(Protocol::Esp).is_ok())
        .collect()
}

/// One packet of the burst.
struct One {
    transform: Transform,
    text: Vec<u8>,
    esn: bool,
    sequence: u64,
    /// Bit to damage, and bytes that the destination is shorter or longer.
    damage: u16,
    shift: i8,
}

fn one(bytes: &mut Bytes<'_>, suites: &[Suite], backend: Backend, number: u64) -> One {
    let suite = suites[usize::from(bytes.byte()) % suites.len()];
    let flags = bytes.byte();
    let length = usize::from(bytes.word()) % 9217;
    let damage = bytes.word();
    let shift = if flags & 2 == 0 {
        0
    } else {
        bytes.byte() as i8
    };
    let seed = bytes.take(3).to_vec();
    let fill = |length: usize, salt: u8| -> Vec<u8> {
        let bytes = (salt..=255).cycle().zip(seed.iter().cycle());
        bytes.take(length).map(|(a, b)| a ^ b).collect()
    };
    let integrity = suite.integrity.map_or(0, Integrity::key_length);
    let keys = [
        Secret::new((3..).take(suite.encryption.key_length()).collect()),
        Secret::new((90..).take(integrity).collect()),
    ];
    let mut text = if seed.is_empty() {
        vec![0; length]
    } else {
        fill(length, 1)
    };
    text.resize((length + 2).next_multiple_of(suite.alignment()), 4);
    One {
        transform: Transform::with(backend, suite, &keys[0], &keys[1]).unwrap(),
        text,
        esn: flags & 1 == 1,
        sequence: number << 32 | u64::from(flags),
        damage,
        shift,
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let (mut bytes, suites) = (Bytes::new(bytes), suites());
    let backends: Vec<Backend> = Backend::all().collect();
    let backend = backends[usize::from(bytes.byte()) % backends.len()];
    let mut burst = Vec::new();
    while !bytes.is_empty() && burst.len() < BURST {
        burst.push(one(&mut bytes, &suites, backend, burst.len() as u64));
    }
    let packets = sealed(&burst);
    for (undamaged, packets) in [(true, packets.clone()), (false, damaged(&burst, packets))] {
        for ((one, packet), text) in burst.iter().zip(&packets).zip(opened(&burst, &packets)) {
            let Some(packet) = packet else {
                continue;
            };
            let suite = one.transform.suite();
            assert_eq!(
                text.is_some(),
                undamaged,
                "{suite:?} {} bytes",
                packet.len()
            );
            assert!(
                text.is_none_or(|text| text == one.text),
                "{suite:?} {} bytes",
                packet.len()
            );
        }
    }
}

/// The burst sealed; `None` for destinations that were no fit.
fn sealed(burst: &[One]) -> Vec<Option<Vec<u8>>> {
    let mut rooms: Vec<Vec<u8>> = burst.iter().map(room).collect();
    let mut jobs: Vec<SealJob<'_>> = burst
        .iter()
        .zip(&mut rooms)
        .map(|(one, room)| {
            let end = room.len() - GUARDS;
            SealJob {
                transform: &one.transform,
                source: &one.text[..one.text.len() - 2],
                destination: &mut room[GUARDS..end],
                sequence: one.sequence,
                esn: one.esn,
            }
        })
        .collect();
    seal(&mut jobs);
    let checked = burst.iter().zip(rooms).map(|(one, room)| {
        guarded(&room);
        let packet = &room[GUARDS..room.len() - GUARDS];
        (one.shift == 0).then(|| packet.to_vec())
    });
    checked.collect()
}

/// A guarded destination with header, IV and trailer in place, longer or shorter if asked to.
fn room(one: &One) -> Vec<u8> {
    let suite = one.transform.suite();
    let front = 8 + suite.iv_length();
    let whole = front + one.text.len() + suite.icv_length();
    let length = whole.saturating_add_signed(one.shift.into());
    let mut packet = vec![0; whole];
    packet[..4].copy_from_slice(&[0, 0, 0x10, 1]);
    packet[4..8].copy_from_slice(&one.sequence.to_be_bytes()[4..]);
    let trailer = front + one.text.len();
    packet[trailer - 2..trailer].copy_from_slice(&one.text[one.text.len() - 2..]);
    packet.resize(length, 0);
    [&[GUARD; GUARDS][..], &packet, &[GUARD; GUARDS]].concat()
}

fn guarded(room: &[u8]) {
    let (front, rest) = room.split_at(GUARDS);
    let back = &rest[rest.len() - GUARDS..];
    assert!(
        front.iter().chain(back).all(|byte| *byte == GUARD),
        "written beyond the end"
    );
}

fn damaged(burst: &[One], mut packets: Vec<Option<Vec<u8>>>) -> Vec<Option<Vec<u8>>> {
    for (one, packet) in burst.iter().zip(&mut packets) {
        if let Some(packet) = packet {
            let bit = usize::from(one.damage) % (packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }
    }
    packets
}

fn opened(burst: &[One], packets: &[Option<Vec<u8>>]) -> Vec<Option<Vec<u8>>> {
    let nothing = Vec::new();
    let sources: Vec<&Vec<u8>> = packets
        .iter()
        .map(|it| it.as_ref().unwrap_or(&nothing))
        .collect();
    let mut rooms: Vec<Vec<u8>> = sources
        .iter()
        .map(|source| vec![GUARD; source.len() + 2 * GUARDS])
        .collect();
    let mut jobs: Vec<OpenJob<'_>> = burst
        .iter()
        .zip(&sources)
        .zip(&mut rooms)
        .map(|((one, source), room)| OpenJob {
            transform: &one.transform,
            source,
            destination: &mut room[GUARDS..GUARDS + source.len()],
            sequence: one.sequence,
            esn: one.esn,
            authentic: true,
        })
        .collect();
    open(&mut jobs);
    let authentic: Vec<bool> = jobs.iter().map(|job| job.authentic).collect();
    let texts = burst
        .iter()
        .zip(rooms)
        .zip(authentic)
        .map(|((one, room), authentic)| {
            guarded(&room);
            authentic.then(|| room[GUARDS..GUARDS + one.text.len()].to_vec())
        });
    texts.collect()
}
