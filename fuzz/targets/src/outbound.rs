//! What comes from the protected side and from the machine: selected, fitted and protected by
//! several SAs. The far gateway opens all that the near one seals.

use ipsec::packet::{Fragment, parse};
use ipsec::time::{MILLISECOND, Time};

use crate::bytes::{Bytes, chunk};
use crate::gateway::{Gateway, LAN, OUT, PAIRS, WAN};
use crate::inbound::protected_frame;
use crate::packets::{self, FAR, NEAR};

/// Packets of one input, at most.
const PACKETS: usize = 24;

/// What may stand against a packet that the near gateway sealed; the far one has opened it then.
const AFTER_OPENING: [&str; 8] = [
    "selector_mismatch",
    "ecn",
    "hop_limit",
    "too_big",
    "no_route",
    "no_neighbor",
    "policy_discard",
    "no_policy",
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let one = |flags: u8, packet: &[u8]| [&[flags], &chunk(packet)[..]].concat();
    let mut seeds: Vec<Vec<u8>> = packets::samples()
        .iter()
        .flat_map(|it| [one(0, it), one(1, it)])
        .collect();
    for number in 0..PAIRS.len() as u8 {
        let (odd, even) = (2 * number + 1, 2 * number + 2);
        for length in [40, 1400, 2500] {
            let payload = packets::udp(6500, 9, length);
            let packet = if PAIRS[usize::from(number)].v6 {
                packets::v6(17, odd, even, &payload)
            } else {
                packets::v4(17, [10, odd, 0, 2], [10, even, 0, 2], &payload)
            };
            seeds.push([one(0, &packet), one(0x81, &packet), one(0, &packet)].concat());
        }
    }
    seeds
}

pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let (mut near, mut far) = (Gateway::near(), Gateway::far());
    let (mut burst, mut count, mut sealed) = (Vec::new(), 0, 0);
    while !bytes.is_empty() && count < PACKETS {
        let flags = bytes.byte();
        let mut packet = bytes.chunk().to_vec();
        if flags & 2 == 0 {
            packets::finish(&mut packet);
        }
        let now = Time(count as u64 * MILLISECOND);
        count += 1;
        let frame = protected_frame(&packet);
        if flags & 1 == 1 {
            let [wan, _] = near.host_sends(&frame, now);
            sealed += pass_on(wan, &mut far, now);
        } else if frame.len() <= 4000 {
            burst.push(frame);
        }
        if flags & 0x80 != 0 || bytes.is_empty() || count == PACKETS {
            let [wan, _] = near.arrive(LAN, &burst, now);
            sealed += pass_on(wan, &mut far, now);
            burst.clear();
        }
    }
    near.settle();
    let document = far.settle().document();
    let opened: u64 = document
        .sas
        .iter()
        .map(|sa| if sa.direction == "in" { sa.packets } else { 0 })
        .sum();
    assert_eq!(opened, sealed, "{document:?}");
    for (reason, count) in document.drops.iter().filter(|(_, count)| **count != 0) {
        assert!(AFTER_OPENING.contains(&reason.as_str()), "{count} {reason}");
    }
}

/// Gives the far gateway what the near one has sealed; how many packets that were.
fn pass_on(frames: Vec<Vec<u8>>, far: &mut Gateway, now: Time) -> u64 {
    let mut sealed = 0;
    for frame in frames.into_iter().filter(|frame| is_sealed(frame)) {
        far.arrive(WAN, &[frame], now);
        sealed += 1;
    }
    sealed
}

/// Whether a frame is a whole ESP packet of one of our SAs, bare or in UDP.
fn is_sealed(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let packet = parse(ip).unwrap();
    if packet.fragment != Fragment::Whole {
        return false;
    }
    let ours = match packet.version {
        ipsec::packet::Version::V4 => ip[12..16] == NEAR && ip[16..20] == FAR,
        ipsec::packet::Version::V6 => {
            ip[8..24] == packets::address_v6(0, 1) && ip[24..40] == packets::address_v6(0, 2)
        }
    };
    let upper = usize::from(packet.upper_offset);
    let esp = match packet.protocol {
        50 => upper,
        17 => upper + 8,
        _ => return false,
    };
    let spi = ip
        .get(esp..esp + 4)
        .map(|spi| u32::from_be_bytes(spi.try_into().unwrap()));
    ours && spi.is_some_and(|spi| (OUT..OUT + PAIRS.len() as u32).contains(&spi))
}
