//! What a start, a refused start and a stop leave on disk.

use ipsec::sa::association::Direction;
use ipsec::sa::lifetime::Usage;
use ipsec::time::{SECOND, Time};

use super::{IN, Memory, OUT, at, pair};
use crate::state::{Carried, End, Keeper, KeyId, Record, Store};

/// Ends of both SAs of [`pair`].
fn ends(out: u64, sequence: u64, window: &[u8]) -> Vec<End> {
    vec![
        End {
            slot: OUT,
            sequence: out,
            window: Vec::new(),
            packets: out,
            bytes: out * 100,
        },
        End {
            slot: IN,
            sequence,
            window: window.to_vec(),
            packets: sequence,
            bytes: sequence * 100,
        },
    ]
}

#[test]
fn a_clean_stop_keeps_number_and_window_once() {
    let disk = Memory::declared();
    let (keeper, _) = disk.start(&pair(), Time(0));
    keeper.close(ends(17, 5, &[1, 2, 3])).unwrap();
    let (keeper, start) = disk.start(&pair(), Time(0));
    assert_eq!(start[0].sequence, 17);
    assert_eq!(
        (start[1].sequence, start[1].window.as_slice()),
        (5, [1, 2, 3].as_slice())
    );
    drop(keeper);
    // That was a crash: the window of the stop before it would let old packets in.
    let (_keeper, start) = disk.start(&pair(), Time(0));
    assert_eq!(
        (start[1].sequence, start[1].window.as_slice()),
        (5, [].as_slice())
    );
}

#[test]
fn a_refused_start_leaves_the_records_as_they_were() {
    let disk = Memory::declared();
    let fresh = disk.read().unwrap();
    drop(Keeper::open(Box::new(disk.clone()), &pair(), Time(0)).unwrap());
    assert_eq!(disk.read().unwrap(), fresh);
    let (keeper, _) = disk.start(&pair(), Time(0));
    keeper.close(ends(17, 5, &[1, 2, 3])).unwrap();
    let stopped = disk.read().unwrap();
    for _ in 0..3 {
        drop(Keeper::open(Box::new(disk.clone()), &pair(), Time(0)).unwrap());
    }
    assert_eq!(disk.read().unwrap(), stopped);
    let (_keeper, start) = disk.start(&pair(), Time(0));
    assert_eq!(start[0].sequence, 17);
    assert_eq!(
        (start[1].sequence, &start[1].window[..]),
        (5, &[1, 2, 3][..])
    );
}

#[test]
fn crashes_before_any_packet_move_no_inbound_window() {
    let disk = Memory::declared();
    let (keeper, _) = disk.start(&pair(), Time(0));
    keeper.close(ends(17, 5, &[1, 2, 3])).unwrap();
    for _ in 0..4 {
        let (keeper, start) = disk.start(&pair(), Time(0));
        assert_eq!((start[1].sequence, start[1].reserved_end), (5, 5));
        drop(keeper);
    }
    // The first packet gets its lead.
    let (mut keeper, _) = disk.start(&pair(), Time(0));
    let grants = keeper.extend(&[at(IN, 6)], Time(SECOND)).unwrap();
    assert_eq!(grants[0].reserved_end, 6 + 8);
}

#[test]
fn the_first_lead_stays_until_the_first_packet() {
    let disk = Memory::declared();
    let (mut keeper, start) = disk.start(&pair(), Time(0));
    assert_eq!(start[1].reserved_end, 64);
    for seconds in 1..5 {
        let grants = keeper.review(&[at(IN, 0)], Time(seconds * SECOND)).unwrap();
        assert_eq!(grants, [], "lowered before the peer began");
    }
    let grants = keeper.review(&[at(IN, 1)], Time(9 * SECOND)).unwrap();
    assert_eq!(grants[0].reserved_end, 1 + 8);
}

#[test]
fn a_stop_without_anti_replay_keeps_a_number_beyond_the_reservation() {
    let disk = Memory::declared();
    let mut sas = pair();
    sas[1].replay_window = 0;
    let (keeper, start) = disk.start(&sas, Time(0));
    assert!(start[1].reserved_end < 5000);
    keeper.close(ends(0, 5000, &[])).unwrap();
    let (_keeper, start) = disk.start(&sas, Time(0));
    assert_eq!(start[1].sequence, 5000);
}

//= test T57
#[test]
fn what_was_carried_counts_on_exactly_after_a_stop_and_at_most_after_a_crash() {
    let disk = Memory::declared();
    let (keeper, start) = disk.start(&pair(), Time(0));
    assert_eq!(start[0].usage, Usage::default());
    keeper.close(ends(17, 5, &[])).unwrap();
    let (mut keeper, start) = disk.start(&pair(), Time(0));
    let used = |at: usize| (start[at].usage.packets, start[at].usage.bytes);
    assert_eq!([used(0), used(1)], [(17, 1700), (5, 500)]);
    // 3000 of them and then a crash: what was reserved beyond counts as carried.
    let grants = keeper.extend(&[at(OUT, 3000)], Time(SECOND)).unwrap();
    let end = grants[0].reserved_end;
    drop(keeper);
    let (_keeper, start) = disk.start(&pair(), Time(0));
    let expected = (end, 3000 * 100 + (end - 3000) * 1500);
    assert_eq!((start[0].usage.packets, start[0].usage.bytes), expected);
}

#[test]
fn age_goes_on_by_the_clock() {
    let record = |born| Record {
        key: KeyId([0; 16]),
        name: String::new(),
        direction: Direction::In,
        reserved_end: 9,
        iv_mask: 0,
        boot: [0; 16],
        window: Vec::new(),
        carried: Carried {
            sequence: 9,
            born,
            ..Carried::default()
        },
    };
    assert_eq!(record(1000).usage(1060).seconds, 60);
    // A clock that went back, and a record that does not tell.
    assert_eq!(record(1000).usage(900).seconds, 0);
    assert_eq!(record(0).usage(900).seconds, 0);
}

#[test]
fn records_of_the_first_format_are_read_and_count_from_now_on() {
    let disk = Memory::declared();
    let (keeper, _) = disk.start(&[pair().remove(0)], Time(0));
    keeper.close(vec![ends(17, 5, &[]).remove(0)]).unwrap();
    let bytes = disk.bytes.lock().unwrap().clone().unwrap();
    let body = bytes.len() - 32;
    // The last 32 bytes of the only record are new.
    let mut old = bytes[..body - 32].to_vec();
    old[8..12].copy_from_slice(&1_u32.to_be_bytes());
    let checksum = ring::digest::digest(&ring::digest::SHA256, &old);
    old.extend(checksum.as_ref());
    *disk.bytes.lock().unwrap() = Some(old);
    let (_keeper, start) = disk.start(&[pair().remove(0)], Time(0));
    assert_eq!(start[0].sequence, 17);
    assert_eq!(start[0].usage, Usage::default());
}
