//! What comes from the protected side and from the machine: selected, fitted and protected by
//! several SAs. The far gateway opens all that the near one seals.

use ipsec::ip::fragment::Plan;
use ipsec::packet::{Fragment, Version, builtin, parse};
use ipsec::time::{MILLISECOND, Time};

use crate::bytes::{Bytes, chunk};
use crate::gateway::{Gateway, LAN, WAN, is_bypassed};
use crate::inbound::protected_frame;
use crate::packets;
use crate::pairs::{OUT, PAIRS, Pair};

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
    for (number, pair) in PAIRS.iter().enumerate() {
        for length in [40, 1400, 2500] {
            let packet = pair.sample(number, true, length);
            let by = u8::from(pair.own);
            seeds.push([one(by, &packet), one(0x80 | by, &packet), one(by, &packet)].concat());
        }
        // The machine's own fragments, as they are.
        let packet = pair.sample(number, true, 2500);
        if let Some(plan) = Plan::own(&packet, 7, 1000) {
            let mut piece = [0; 1000];
            let pieces = (0..plan.count()).filter_map(|index| {
                let length = plan.write(&packet, index, &mut piece)?;
                Some(one(3, &piece[..length]))
            });
            seeds.push(pieces.flatten().collect());
        }
    }
    seeds
}

pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let (mut near, mut far) = (Gateway::near(), Gateway::far());
    let (mut burst, mut count, mut sealed, mut nested) = (Vec::new(), 0, 0, false);
    while !bytes.is_empty() && count < PACKETS {
        let flags = bytes.byte();
        let mut packet = bytes.chunk().to_vec();
        if flags & 2 == 0 {
            packets::finish(&mut packet);
        }
        let now = Time(count as u64 * MILLISECOND);
        count += 1;
        nested |= looks_protected(&packet);
        let frame = protected_frame(&packet);
        if flags & 1 == 1 {
            let [wan, _] = near.host_sends(&frame, now);
            // What is built in (IKE, neighbour discovery) leaves in the clear from here alone.
            let free = |ip: &[u8]| builtin(ip, &parse(ip).unwrap(), |_| true).is_some();
            sealed += pass_on(wan, free, &mut far, now);
        } else if frame.len() <= 4000 {
            burst.push(frame);
        }
        if flags & 0x80 != 0 || bytes.is_empty() || count == PACKETS {
            let [wan, _] = near.arrive(LAN, &burst, now);
            sealed += pass_on(wan, |_| false, &mut far, now);
            burst.clear();
        }
    }
    near.settle();
    let document = far.settle();
    let opened: u64 = document
        .sas
        .iter()
        .map(|sa| if sa.direction == "in" { sa.packets } else { 0 })
        .sum();
    assert_eq!(opened, sealed, "{document:?}");
    for (reason, count) in document.drops.iter().filter(|(_, count)| **count != 0) {
        let expected = AFTER_OPENING.contains(&reason.as_str());
        assert!(expected || nested, "{count} {reason}");
    }
}

/// Whether the gateway that opens such a packet would look for an SA of its own in it: there the
/// fuzzer's bytes are those of an attacker with the keys of the outer SA.
fn looks_protected(packet: &[u8]) -> bool {
    parse(packet).is_ok_and(|packet| matches!(packet.protocol, 50 | 51))
}

/// Gives the far gateway what the near one has sealed; how often SAs have counted that. In the
/// clear nothing leaves but by a bypass policy, or what is `free`.
fn pass_on(
    frames: Vec<Vec<u8>>,
    free: impl Fn(&[u8]) -> bool,
    far: &mut Gateway,
    now: Time,
) -> u64 {
    let mut sealed = 0;
    for frame in frames {
        if let Some(times) = times_sealed(&frame) {
            far.arrive(WAN, &[frame], now);
            sealed += times;
        } else {
            let allowed = is_bypassed(&frame, true) || free(&frame[14..]);
            assert!(allowed, "leaked: {frame:02x?}");
        }
    }
    sealed
}

/// How many SAs a frame has gone through; a fragment counts as the first of its packet. Nothing
/// where it left in the clear.
fn times_sealed(frame: &[u8]) -> Option<u64> {
    let ip = &frame[14..];
    let packet = parse(ip).unwrap();
    let upper = usize::from(packet.upper_offset);
    let spi = match packet.protocol {
        50 => upper,
        51 => upper + 4,
        17 => upper + 8,
        _ => return None,
    };
    let (source, rest) = match packet.version {
        Version::V4 => (&ip[12..16], &ip[16..20]),
        Version::V6 => (&ip[8..24], &ip[24..40]),
    };
    let mut ours = PAIRS.iter().enumerate().filter(|(number, pair)| {
        let [near, far] = pair.ends(*number, pair.layers.len() - 1);
        (source, rest) == (&near[..], &far[..])
    });
    match packet.fragment {
        // Put together where ESP or AH shows, and UDP is not looked into.
        Fragment::First | Fragment::Later if packet.protocol == 17 => return None,
        Fragment::Later => return ours.next().map(|_| 0),
        Fragment::First | Fragment::Whole => {}
    }
    let spi = u32::from_be_bytes(ip.get(spi..spi + 4)?.try_into().unwrap());
    let (_, pair) = ours.find(|(number, pair)| {
        let outermost = pair.layers.len() - 1;
        let protocol = match pair.encapsulated() {
            true => 17,
            false => pair.layers[outermost].protocol as u8,
        };
        spi == Pair::spi(OUT, *number, outermost) && packet.protocol == protocol
    })?;
    Some(pair.layers.len() as u64)
}
