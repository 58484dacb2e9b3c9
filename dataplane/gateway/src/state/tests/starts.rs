//! What a start, a refused start and a stop leave on disk.

use ipsec::time::{SECOND, Time};

use super::{IN, Memory, OUT, pair};
use crate::state::{End, Keeper, Store};

/// Ends of both SAs of [`pair`].
fn ends(out: u64, sequence: u64, window: &[u8]) -> Vec<End> {
    vec![
        End {
            slot: OUT,
            sequence: out,
            window: Vec::new(),
        },
        End {
            slot: IN,
            sequence,
            window: window.to_vec(),
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
    let grants = keeper.extend(&[(IN, 6)], Time(SECOND)).unwrap();
    assert_eq!(grants[0].reserved_end, 6 + 8);
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
