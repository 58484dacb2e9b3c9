//! Goal: what VPP's IPsec tests ask of a data plane (`template_ipsec.py` and its users) holds here:
//! long bursts, odd sizes, numbers that are replayed, jump, wrap and come under a wrong key, the
//! sender at the end of the numbers, runts. Method: ESP and AH by scapy through `replay`, with and
//! without extended numbers.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xipsec_tests::config::{Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, IpFields, UDP};
use xipsec_tests::peer;
use xipsec_tests::replay::{self, Replay, Replayed};
use xipsec_tests::suite::{self, Suite};

const EPOCH: u64 = 1 << 32;

/// A combined cipher, a block cipher, and AH.
fn suites() -> Vec<Suite> {
    let cbc = suite::every_esp()
        .into_iter()
        .find(|suite| suite.name() == "aes128+sha1_96");
    [suite::AES128GCM16, suite::AH_SHA256]
        .into_iter()
        .chain(cbc)
        .collect()
}

fn datagram(ends: [&str; 2], size: usize) -> Result<Vec<u8>> {
    let data: Vec<u8> = (0..=250).cycle().take(size).collect();
    let payload = packets::udp(ends[0], ends[1], [4000, 9], &data)?;
    packets::ip(ends[0], ends[1], UDP, IpFields::default(), &payload)
}

fn lowered(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets
        .iter()
        .map(|packet| packets::one_hop_less(packet))
        .collect()
}

fn bytes(frames: &[Frame]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| frame.packet().to_vec()).collect()
}

/// VPP: bursts of 257, which is no multiple of any batch, and sizes around every alignment.
#[test]
fn a_burst_of_257_of_odd_sizes() {
    with_scapy("a_burst_of_257_of_odd_sizes", || {
        for suite in suites() {
            for family in [Family::V4, Family::V6] {
                let context = || format!("{} {family:?}", suite.name());
                burst(suite, family).with_context(context)?;
            }
        }
        Ok(())
    });
}

fn burst(suite: Suite, family: Family) -> Result<()> {
    let sas = replay::sas(family, suite);
    let [left, right] = replay::hosts(&LEFT, &RIGHT, family);
    let sizes: Vec<usize> = (0..257).map(|at| at * 131 % 1291).collect();
    let all = |from, to| -> Result<Vec<Vec<u8>>> {
        sizes
            .iter()
            .map(|size| datagram([from, to], *size))
            .collect()
    };
    let (there, back) = (all(left, right)?, all(right, left)?);
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let plain = (1..).zip(&back).map(|(at, it)| replay::from_peer(at, it));
    let sealed = peer::seal(&sas[1], 1, &plain.collect::<Vec<_>>(), replay.directory())?;
    let frames = (1..).zip(&there).map(|(at, it)| replay::from_host(at, it));
    replay.input("lan0", frames.collect());
    let result = replay.input("wan0", sealed).run()?;
    ensure!(result.drops.is_empty(), "{}", result.json["drops"]);
    ensure!(bytes(&result.lan) == lowered(&back), "what arrived differs");
    let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
    ensure!(bytes(&opened.inner) == lowered(&there), "{}", opened.report);
    Ok(())
}

/// What becomes of a number: the frame arrives, or is dropped for that reason.
type Fate = Option<&'static str>;
const PASSES: Fate = None;
const REPLAY: Fate = Some("replay");
const FORGED: Fate = Some("authentication");

/// Packets that arrive one after the other: a number, whether its key is wrong, and its fate.
type Steps<'s> = &'s [(u64, bool, Fate)];

/// Seals one datagram per step and compares the fates.
fn numbers(suite: Suite, esn: bool, keys: &[&str], steps: Steps<'_>) -> Result<(Sa, Replayed)> {
    let [out, mut sa] = replay::sas(Family::V4, suite);
    sa.esn = esn;
    sa.extra = keys.iter().map(|key| (*key).to_owned()).collect();
    let mut replay = Replay::new(&replay::tunnel(&[out, sa.clone()], &[]))?;
    let ends = [RIGHT.host[0], LEFT.host[0]];
    let plain = (1..).take(steps.len()).map(|at| {
        let size = usize::try_from(at)?;
        Ok(replay::from_peer(at, &datagram(ends, size)?))
    });
    let plain = plain.collect::<Result<Vec<Frame>>>()?;
    let crafts = |steps: Steps<'_>| -> Vec<Value> {
        steps
            .iter()
            .map(|(number, ..)| json!({"number": number}))
            .collect()
    };
    let directory = replay.directory();
    let mut frames = peer::seal_crafted(&sa, &plain, &crafts(steps), directory)?;
    if steps.iter().any(|(_, wrong_key, _)| *wrong_key) {
        let other = sa.clone().random()?;
        let wrong = peer::seal_crafted(&other, &plain, &crafts(steps), directory)?;
        for ((frame, wrong), (_, wrong_key, _)) in frames.iter_mut().zip(wrong).zip(steps) {
            if *wrong_key {
                *frame = wrong;
            }
        }
    }
    let result = replay.input("wan0", frames).run()?;
    let (mut came, mut dropped) = (result.lan.iter(), result.reasons().into_iter());
    for ((number, _, fate), plain) in steps.iter().zip(&plain) {
        let told = format!("{number:#x}: {}", result.json["drops"]);
        match fate {
            None => {
                let frame = came.next().with_context(|| told.clone())?;
                ensure!(
                    frame.packet() == packets::one_hop_less(plain.packet()),
                    "{told}"
                );
            }
            Some(reason) => ensure!(dropped.next() == Some(reason), "{told}, not {reason}"),
        }
    }
    ensure!(
        came.next().is_none() && dropped.next().is_none(),
        "{}",
        result.json["drops"]
    );
    let passed = steps.iter().filter(|(.., fate)| fate.is_none()).count();
    let counted = sa_member(&result.json, &sa.name, "packets")?;
    ensure!(counted == u64::try_from(passed)?, "{counted} counted");
    Ok((sa, result))
}

/// The same for every suite.
fn all_numbers(esn: bool, keys: &[&str], steps: Steps<'_>) -> Result<()> {
    for suite in suites() {
        numbers(suite, esn, keys, steps).with_context(|| suite.name())?;
    }
    Ok(())
}

/// VPP: `verify_tra_anti_replay`.
//= test T24
//= test T26
//= test T27
//= test T28
//= test T48
#[test]
fn anti_replay_from_1_to_34_and_beyond() {
    with_scapy("anti_replay_from_1_to_34_and_beyond", || {
        for esn in [false, true] {
            // Left of the window is old without extended numbers, and forged with them: there it
            // reads as a number of the next epoch.
            let left = if esn { FORGED } else { REPLAY };
            let mut steps: Vec<(u64, bool, Fate)> = (1..=34).map(|n| (n, false, PASSES)).collect();
            steps.extend((1..=34).map(|n| (n, false, REPLAY)));
            // Eight copies of one number: one passes.
            steps.push((35, false, PASSES));
            steps.extend([(35, false, REPLAY); 7]);
            // The window and 100: all from before lies left of it.
            steps.push((64 + 100, false, PASSES));
            steps.push((64 + 100, false, REPLAY));
            // A wrong key moves nothing, near or far: a number inside the window still passes.
            steps.extend([
                (165, true, FORGED),
                (350, true, FORGED),
                (4000, true, FORGED),
            ]);
            steps.push((137, false, PASSES));
            steps.push((137, true, REPLAY));
            steps.push((101, false, PASSES));
            steps.extend([(100, false, left), (17, false, left)]);
            // A replay does not hurt what follows.
            steps.extend([
                (165, false, PASSES),
                (165, false, REPLAY),
                (166, false, PASSES),
            ]);
            all_numbers(esn, &["replay_window = 64"], &steps).with_context(|| format!("{esn}"))?;
        }
        Ok(())
    });
}

/// VPP: `verify_hi_seq_num`, and what it has with anti-replay off.
//= test T30
//= test T48
#[test]
fn jumps_and_wraps_of_extended_numbers() {
    with_scapy("jumps_and_wraps_of_extended_numbers", || {
        let steps = [
            (1, false, PASSES),
            (0x8000_0001, false, PASSES),
            // Far behind is the epoch that comes.
            (0x1_4400_0001, false, PASSES),
            (0x1_4400_0001, false, REPLAY),
            (0x1_4400_0002, false, PASSES),
            (0x1_8000_0001, false, PASSES),
            (0x2_0000_0005, false, PASSES),
            (0x2_8000_0005, false, PASSES),
            (0x3_7000_0005, false, PASSES),
            // An epoch that cannot be meant: its ICV is over the wrong upper half.
            (0x5_7000_0006, false, FORGED),
            (0x2_7000_0006, false, FORGED),
            (0x3_7000_0006, false, PASSES),
        ];
        for window in [64, 131_072] {
            all_numbers(true, &[&format!("replay_window = {window}")], &steps)?;
        }
        Ok(())
    });
}

/// VPP and RFC 4303 appendix A2: cases A and B, over the end of an epoch and back.
//= test T30
#[test]
fn a_window_that_spans_two_epochs() {
    with_scapy("a_window_that_spans_two_epochs", || {
        for epoch in [1, 0x7fff_ffff] {
            let edge = epoch * EPOCH;
            let start = format!("sequence = {}", edge - 100);
            for window in [64_u64, 1024] {
                let size = format!("replay_window = {window}");
                let mut steps = vec![
                    (edge - 70, false, PASSES),
                    (edge - 1, false, PASSES),
                    // From case A into case B.
                    (edge, false, PASSES),
                    (edge + 5, false, PASSES),
                    (edge - 1, false, REPLAY),
                    (edge - 2, false, PASSES),
                    (edge - 58, false, PASSES),
                    (edge - 58, false, REPLAY),
                    (edge + 4, false, PASSES),
                    (edge + 5, false, REPLAY),
                    // Case A again: the whole window lies in the new epoch.
                    (edge + window + 50, false, PASSES),
                    (edge + 51, false, PASSES),
                    (edge + 51, false, REPLAY),
                ];
                // Left of the window: of this epoch's end or the next, so its ICV is wrong.
                steps.push((edge + 50, false, FORGED));
                steps.push((edge - 3, false, FORGED));
                all_numbers(true, &[&start, &size], &steps)
                    .with_context(|| format!("{epoch} {window}"))?;
            }
        }
        Ok(())
    });
}

/// VPP: the sender near 2³². Without extended numbers it ends there, with them it goes on.
//= test T03
//= test T04
//= test T05
#[test]
fn sending_near_the_end_of_the_numbers() {
    with_scapy("sending_near_the_end_of_the_numbers", || {
        for suite in suites() {
            for (esn, last, passing) in [
                (false, EPOCH - 4, 3),
                (false, EPOCH - 1, 0),
                (true, EPOCH - 4, 10),
                (true, 5 * EPOCH - 3, 10),
            ] {
                send_after(suite, esn, last, passing)
                    .with_context(|| format!("{} {esn} {last:#x}", suite.name()))?;
            }
        }
        Ok(())
    });
}

fn send_after(suite: Suite, esn: bool, last: u64, passing: usize) -> Result<()> {
    let [mut out, into] = replay::sas(Family::V4, suite);
    out.esn = esn;
    out.extra = vec![format!("sequence = {last}")];
    let ends = [LEFT.host[0], RIGHT.host[0]];
    let packets = (0..10)
        .map(|size| datagram(ends, size))
        .collect::<Result<Vec<_>>>()?;
    let mut replay = Replay::new(&replay::tunnel(&[out.clone(), into], &[]))?;
    let frames = (1..)
        .zip(&packets)
        .map(|(at, it)| replay::from_host(at, it));
    let result = replay.input("lan0", frames.collect()).run()?;
    ensure!(result.wan.len() == passing, "{} left", result.wan.len());
    let reasons = result.reasons();
    ensure!(
        reasons == vec!["sequence_exhausted"; 10 - passing],
        "{reasons:?}"
    );
    // The last 32 bits travel; the upper half the tag or ICV hangs on.
    let place = if suite.encryption.is_empty() { 28 } else { 24 };
    for (number, frame) in (last + 1..).zip(&result.wan) {
        let field = &frame.packet()[place..place + 4];
        ensure!(
            field == &number.to_be_bytes()[4..],
            "{number:#x}: {field:x?}"
        );
    }
    let reached = sa_member(&result.json, &out.name, "sequence")?;
    ensure!(reached == last + u64::try_from(passing)?, "{reached:#x}");
    let opened = peer::open(&[out], &replay.file("out-wan0.pcap"))?;
    ensure!(
        bytes(&opened.inner) == lowered(&packets[..passing]),
        "{}",
        opened.report
    );
    Ok(())
}

/// VPP: runts. All lengths of ESP and AH that are shorter than they must be.
//= test T34
#[test]
fn runts_are_malformed() {
    with_scapy("runts_are_malformed", || {
        for suite in suites() {
            let [out, sa] = replay::sas(Family::V4, suite);
            let mut replay = Replay::new(&replay::tunnel(&[out, sa.clone()], &[]))?;
            let plain = replay::from_peer(1, &datagram([RIGHT.host[0], LEFT.host[0]], 0)?);
            let sealed = peer::seal(&sa, 1, std::slice::from_ref(&plain), replay.directory())?;
            let whole = sealed[0].packet();
            // Header, IV, the shortest text of whole blocks, ICV; AH and the ICV.
            let least = if suite.encryption.is_empty() {
                12 + suite.icv_bytes
            } else {
                8 + suite.iv_bytes + suite.block_bytes + suite.icv_bytes
            };
            let runts = (0..least).map(|length| {
                let mut packet = whole[..20 + length].to_vec();
                packet[2..4].copy_from_slice(&u16::try_from(20 + length)?.to_be_bytes());
                packet[10..12].fill(0);
                let sum = packets::checksum(0, &packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                Ok(replay::from_peer(u64::try_from(length)?, &packet))
            });
            let mut frames = runts.collect::<Result<Vec<Frame>>>()?;
            let late = Frame {
                time: std::time::Duration::from_micros(1000),
                ..sealed[0].clone()
            };
            frames.push(late);
            let result = replay.input("wan0", frames).run()?;
            let reasons = result.reasons();
            ensure!(
                reasons == vec!["malformed"; least],
                "{}: {reasons:?}",
                suite.name()
            );
            // They have moved nothing.
            ensure!(result.lan.len() == 1, "{}", suite.name());
        }
        Ok(())
    });
}
