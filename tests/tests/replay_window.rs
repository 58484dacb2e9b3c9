//! Goal: anti-replay accepts every new number inside the window once and nothing else, moves only
//! for authentic packets, and counts 64 bits with ESN. Method: scapy seals the same packet under
//! chosen numbers; `replay` says which came through.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xipsec_tests::config::{Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, ICMP, IpFields};
use xipsec_tests::replay::{self, Replay, Replayed};
use xipsec_tests::{peer, suite};

/// Seals one echo per entry with the number it names and replays them in this order.
fn numbered(extra: &[&str], esn: bool, crafts: &[Value]) -> Result<(Sa, Replayed)> {
    let mut sas = replay::sas(Family::V4, suite::AES128GCM16);
    sas[1].esn = esn;
    sas[1].extra = extra.iter().map(|line| (*line).to_owned()).collect();
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let [from, to] = replay::hosts(&RIGHT, &LEFT, Family::V4);
    let plain = (0..crafts.len()).map(|index| {
        let message = packets::echo(1, u16::try_from(index)?, b"window");
        let packet = packets::ip(from, to, ICMP, IpFields::default(), &message)?;
        Ok(replay::from_peer(u64::try_from(index)?, &packet))
    });
    let plain = plain.collect::<Result<Vec<Frame>>>()?;
    let sealed = peer::seal_crafted(&sas[1], &plain, crafts, replay.directory())?;
    replay.input("wan0", sealed);
    let [_, sa] = sas;
    Ok((sa, replay.run()?))
}

/// Checks which entries came through; all others must have been dropped as `replay`.
fn accepts(extra: &[&str], esn: bool, cases: &[(u64, bool)]) -> Result<Replayed> {
    let crafts: Vec<Value> = cases
        .iter()
        .map(|(number, _)| json!({"number": number}))
        .collect();
    let (_, result) = numbered(extra, esn, &crafts)?;
    // The echo's own sequence number says which packet it was.
    let came: Vec<usize> = result
        .lan
        .iter()
        .map(|frame| usize::from(u16::from_be_bytes([frame.packet()[26], frame.packet()[27]])))
        .collect();
    let wanted = cases
        .iter()
        .enumerate()
        .filter(|(_, (_, accepted))| *accepted);
    let wanted: Vec<usize> = wanted.map(|(index, _)| index).collect();
    ensure!(
        came == wanted,
        "{came:?} came through, expected {wanted:?}: {}",
        result.json["drops"]
    );
    Ok(result)
}

#[test]
fn each_number_passes_once() {
    with_scapy("each_number_passes_once", || {
        let cases = [
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (3, false),
            (70, true),
            // 64 wide, right edge 70: 7 is the last inside.
            (7, true),
            (6, false),
            (7, false),
            (69, true),
            (200, true),
            (70, false),
            (137, true),
            (136, false),
        ];
        let result = accepts(&["replay_window = 64"], false, &cases)?;
        ensure!(result.dropped("replay") == 7, "{}", result.json["drops"]);
        Ok(())
    });
}

#[test]
fn window_sizes_are_exact() {
    with_scapy("window_sizes_are_exact", || {
        for size in [32_u64, 33, 100, 1024, 1_048_576] {
            let edge = size + 1000;
            let cases = [
                (edge, true),
                (edge - size + 1, true),
                (edge - size, false),
                (edge + 5, true),
                (edge - size + 5, false),
                (edge - size + 6, true),
            ];
            accepts(&[&format!("replay_window = {size}")], false, &cases)?;
        }
        Ok(())
    });
}

#[test]
fn no_window_takes_everything() {
    with_scapy("no_window_takes_everything", || {
        let cases = [
            (5, true),
            (5, true),
            (1, true),
            (4_000_000_000, true),
            (2, true),
        ];
        accepts(&["replay_window = 0"], false, &cases).map(drop)
    });
}

#[test]
fn numbers_given_as_used_count_as_seen() {
    with_scapy("numbers_given_as_used_count_as_seen", || {
        let cases = [(100, false), (40, false), (101, true), (99, false)];
        accepts(&["sequence = 100"], false, &cases).map(drop)
    });
}

#[test]
fn extended_numbers_cross_epochs() {
    with_scapy("extended_numbers_cross_epochs", || {
        let edge = 1_u64 << 32;
        let cases = [
            (edge - 2, true),
            (edge - 1, true),
            (edge + 1, true),
            (edge, true),
            (edge - 1, false),
            (edge + 2, true),
            (edge - 10, true),
            (edge + 2, false),
        ];
        let sequence = format!("sequence = {}", edge - 20);
        accepts(&[&sequence, "replay_window = 64"], true, &cases)?;
        let far = [
            (5 * edge + 7, true),
            (5 * edge + 7, false),
            (5 * edge + 8, true),
        ];
        let sequence = format!("sequence = {}", 5 * edge + 3);
        let result = accepts(&[&sequence, "replay_window = 64"], true, &far)?;
        ensure!(sa_member(&result.json, "right-to-left", "sequence")? == 5 * edge + 8);
        Ok(())
    });
}

#[test]
fn forged_packets_move_nothing() {
    with_scapy("forged_packets_move_nothing", || {
        let crafts = [
            json!({"number": 10}),
            // Far ahead, but forged: the window must stay where it is.
            json!({"number": 100_000, "flip": true}),
            json!({"number": 11, "flip": true}),
            json!({"number": 11}),
            json!({"number": 9}),
            // A duplicate is a replay whatever its ICV.
            json!({"number": 11, "flip": true}),
        ];
        let (sa, result) = numbered(&[], false, &crafts)?;
        let reasons = result.reasons();
        ensure!(
            reasons == ["authentication", "authentication", "replay"],
            "{reasons:?}"
        );
        ensure!(result.lan.len() == 3);
        ensure!(sa_member(&result.json, &sa.name, "sequence")? == 11);
        ensure!(sa_member(&result.json, &sa.name, "packets")? == 3);
        Ok(())
    });
}

#[test]
fn number_zero_is_a_replay() {
    with_scapy("number_zero_is_a_replay", || {
        let result = accepts(&[], false, &[(0, false), (1, true)])?;
        ensure!(result.dropped("replay") == 1);
        Ok(())
    });
}
