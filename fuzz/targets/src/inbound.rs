//! What comes from the unprotected side: raw bytes, and texts of the fuzzer's choice that are
//! sealed with the right keys, so that what lies behind the ICV is reached too.

use ipsec::time::{MILLISECOND, Time};

use crate::bytes::{Bytes, chunk};
use crate::gateway::{Gateway, LAN, MACS, WAN, is_bypassed, wan_frame};
use crate::packets;
use crate::pairs::PAIRS;

/// Packets of one input, at most.
const PACKETS: usize = 24;

/// Kinds of packets. An input is a list of a kind, three bytes that say more, and a chunk.
const RAW_FRAME: u8 = 0;
const RAW_PACKET: u8 = 1;
const SEALED: u8 = 2;
const DAMAGED: u8 = 3;

fn one(kind: u8, more: [u8; 3], bytes: &[u8]) -> Vec<u8> {
    [&[kind], &more[..], &chunk(bytes)].concat()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let samples = packets::samples();
    let mut seeds: Vec<Vec<u8>> = samples
        .iter()
        .map(|it| one(RAW_PACKET, [0; 3], it))
        .collect();
    for (pair, number) in PAIRS.iter().zip(0_u8..) {
        let inner = pair.sample_text(number.into());
        let long = [
            one(SEALED, [number, 1, 0], &inner),
            one(SEALED, [number, 1, 3], &inner),
        ];
        let dummy = one(SEALED, [number, 1, 0], &[1, 2, 3, 4, 5, 6, 0, 59]);
        let damaged = one(DAMAGED, [number, 1, 77], &inner);
        let replayed = one(SEALED, [number, 0, 0], &inner);
        seeds.push([long.concat(), dummy, damaged, replayed].concat());
    }
    seeds
}

pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut gateway = Gateway::near();
    let mut numbers = [0_u64; PAIRS.len()];
    let (mut burst, mut count, mut keys) = (Vec::new(), 0, false);
    while !bytes.is_empty() && count < PACKETS {
        let (kind, more) = (bytes.byte(), [bytes.byte(), bytes.byte(), bytes.byte()]);
        let frame = arriving(kind & 15, more, bytes.chunk(), &mut numbers);
        keys |= kind & 15 == SEALED;
        if frame.len() <= 4000 {
            burst.push(frame);
            count += 1;
        }
        // Most inputs are bursts; the high bit ends one.
        if kind & 0x80 != 0 {
            deliver(&mut gateway, &mut burst, count, keys);
        }
    }
    deliver(&mut gateway, &mut burst, count, keys);
    gateway.settle();
}

/// What comes from somebody who has no keys reaches no host but by a bypass policy.
fn deliver(gateway: &mut Gateway, burst: &mut Vec<Vec<u8>>, count: usize, keys: bool) {
    let [_, lan] = gateway.arrive(WAN, burst, Time(count as u64 * MILLISECOND));
    for frame in lan {
        assert!(keys || is_bypassed(&frame, false), "let in: {frame:02x?}");
    }
    burst.clear();
}

fn arriving(kind: u8, more: [u8; 3], bytes: &[u8], numbers: &mut [u64]) -> Vec<u8> {
    let place = usize::from(more[0]) % PAIRS.len();
    let pair = &PAIRS[place];
    match kind {
        RAW_FRAME => bytes.to_vec(),
        SEALED | DAMAGED => {
            // Forwards by small steps, and now and then far away or back.
            let step = i64::from(more[1] as i8);
            let step = if step.abs() > 100 { step << 25 } else { step };
            let number = numbers[place].saturating_add_signed(step);
            numbers[place] = if pair.esn() {
                number
            } else {
                number & 0xffff_ffff
            };
            let mut packet = pair.sealed(place, numbers[place], bytes);
            if kind == DAMAGED {
                let header = if pair.v6 { 40 } else { 20 };
                let rest = &mut packet[header..];
                let bit = usize::from(more[2]) * 31 % (rest.len() * 8);
                rest[bit / 8] ^= 1 << (bit % 8);
            }
            let class = if kind == SEALED { more[2] } else { 0 };
            wan_frame(pair, packet, class)
        }
        _ => {
            let mut packet = bytes.to_vec();
            if kind == RAW_PACKET || more[0] & 1 == 0 {
                packets::finish(&mut packet);
            }
            packets::frame(MACS[WAN], &packet)
        }
    }
}

/// For targets that want a frame of the protected side instead.
pub(crate) fn protected_frame(packet: &[u8]) -> Vec<u8> {
    packets::frame(MACS[LAN], packet)
}
