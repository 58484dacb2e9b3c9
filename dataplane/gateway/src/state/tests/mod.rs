//! Crashes at every step, two processes, lost records.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

mod histories;

mod starts;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::sa::association::{Direction, DontFragment, Dscp, FlowLabel, Mode, Protocol};
use ipsec::sa::lifetime::Lifetime;
use ipsec::sa::{SaParameters, SaSlot};
use ipsec::secret::Secret;
use ipsec::time::{MILLISECOND, SECOND, Time};
use proptest::prelude::*;

use super::store::{NEXT, RECORDS};
use super::*;

fn sa(name: &str, direction: Direction, key: u8) -> SaParameters {
    SaParameters {
        name: name.to_owned(),
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        spi: 0x1001,
        source: "192.0.2.1".parse().unwrap(),
        destination: "192.0.2.2".parse().unwrap(),
        suite: Suite {
            encryption: Encryption::AesGcm { bits: 128, icv: 16 },
            integrity: None,
        },
        encryption_key: Secret::new(vec![key; 20]),
        integrity_key: Secret::default(),
        esn: false,
        sequence: 0,
        replay_window: 64,
        udp_encapsulation: None,
        keepalive_seconds: 0,
        follow_peer: true,
        lifetime: Lifetime::default(),
        dont_fragment: DontFragment::Copy,
        dscp: Dscp::Copy,
        ecn: true,
        hop_limit: 64,
        flow_label: FlowLabel::Hash,
        tfc_pad_to: 0,
        per_worker: false,
    }
}

fn mac_only(sa: SaParameters) -> SaParameters {
    SaParameters {
        suite: Suite {
            encryption: Encryption::Null,
            integrity: Some(Integrity::Sha1_96),
        },
        encryption_key: Secret::default(),
        integrity_key: Secret::new(vec![7; 20]),
        ..sa
    }
}

/// A disk that can refuse to be written.
#[derive(Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Option<Vec<u8>>>>,
    full: Arc<Mutex<bool>>,
}

impl Store for Memory {
    fn read(&self) -> Result<Option<Contents>, StateError> {
        let bytes = self.bytes.lock().unwrap();
        Ok(bytes
            .as_ref()
            .map(|bytes| Contents::from_bytes(bytes).unwrap()))
    }

    fn commit(&mut self, contents: &Contents) -> Result<(), StateError> {
        if *self.full.lock().unwrap() {
            return Err(StateError::Io {
                path: self.place(),
                action: "write",
                error: std::io::ErrorKind::StorageFull.into(),
            });
        }
        *self.bytes.lock().unwrap() = Some(contents.to_bytes());
        Ok(())
    }

    fn place(&self) -> PathBuf {
        PathBuf::from("memory")
    }
}

impl Memory {
    fn declared() -> Self {
        let mut memory = Self::default();
        memory.commit(&Contents::new(true).unwrap()).unwrap();
        memory
    }

    fn start(&self, sas: &[SaParameters], now: Time) -> (Keeper, Vec<Reservation>) {
        started(self.clone(), sas, now).unwrap()
    }
}

/// A start that nothing refuses.
fn started(
    store: impl Store + 'static,
    sas: &[SaParameters],
    now: Time,
) -> Result<(Keeper, Vec<Reservation>), StateError> {
    let (mut keeper, starts) = Keeper::open(Box::new(store), sas, now)?;
    keeper.begin()?;
    Ok((keeper, starts))
}

/// An SA that has reached that number, with a packet of 100 bytes for each.
const fn at(slot: SaSlot, number: u64) -> Reached {
    Reached {
        slot,
        needed: number,
        sequence: number,
        packets: number,
        bytes: number * 100,
    }
}

const OUT: SaSlot = SaSlot(0);
const IN: SaSlot = SaSlot(1);

fn pair() -> Vec<SaParameters> {
    vec![sa("out", Direction::Out, 1), sa("in", Direction::In, 2)]
}

#[test]
fn a_start_reserves_a_block_before_anything_is_used() {
    let disk = Memory::declared();
    let (_keeper, first) = disk.start(&pair(), Time(0));
    assert_eq!((first[0].sequence, first[0].reserved_end), (0, 4096));
    assert_eq!((first[1].sequence, first[1].reserved_end), (0, 64));
    let records = disk.read().unwrap().unwrap().records;
    let ends: BTreeSet<u64> = records.values().map(|record| record.reserved_end).collect();
    assert_eq!(ends, BTreeSet::from([64, 4096]));
}

#[test]
fn after_a_crash_numbers_go_on_behind_the_block_under_the_same_mask() {
    let disk = Memory::declared();
    let (keeper, first) = disk.start(&pair(), Time(0));
    drop(keeper);
    let (_keeper, second) = disk.start(&pair(), Time(0));
    assert_eq!((second[0].sequence, second[0].reserved_end), (4096, 8192));
    // Known: its first packet asks.
    assert_eq!((second[1].sequence, second[1].reserved_end), (64, 64));
    assert_eq!(first[0].iv_mask, second[0].iv_mask);
    assert_ne!(first[0].iv_mask, first[1].iv_mask);
}

#[test]
fn the_files_sequence_counts_where_it_is_higher() {
    let disk = Memory::declared();
    let mut sas = pair();
    sas[0].sequence = 10_000;
    let (_keeper, start) = disk.start(&sas, Time(0));
    assert_eq!((start[0].sequence, start[0].reserved_end), (10_000, 14_096));
}

#[test]
fn an_exhausted_sa_stays_exhausted() {
    let disk = Memory::declared();
    let mut sas = pair();
    sas[0].sequence = u64::from(u32::MAX);
    let (mut keeper, start) = disk.start(&sas, Time(0));
    assert_eq!(start[0].sequence, start[0].reserved_end);
    let grants = keeper
        .extend(&[at(OUT, u64::from(u32::MAX))], Time(0))
        .unwrap();
    assert_eq!(grants, []);
}

#[test]
fn blocks_follow_the_rate_between_their_bounds() {
    let disk = Memory::declared();
    let (mut keeper, _) = disk.start(&pair(), Time(0));
    let grants = keeper.extend(&[at(OUT, 2048)], Time(SECOND)).unwrap();
    assert_eq!(
        grants,
        [Grant {
            slot: OUT,
            reserved_end: 2048 + 4096
        }]
    );
    let grants = keeper
        .extend(&[at(OUT, 6000)], Time(SECOND + 100 * MILLISECOND))
        .unwrap();
    assert_eq!(
        grants,
        [Grant {
            slot: OUT,
            reserved_end: 6000 + 39_520
        }]
    );
    let grants = keeper
        .extend(&[at(OUT, 1_000_000)], Time(SECOND + 101 * MILLISECOND))
        .unwrap();
    assert_eq!(
        grants,
        [Grant {
            slot: OUT,
            reserved_end: 1_000_000 + (1 << 20)
        }]
    );
    assert_eq!(
        keeper
            .extend(&[at(OUT, 1_000_000)], Time(2 * SECOND))
            .unwrap(),
        []
    );
}

#[test]
fn inbound_limits_go_down_on_disk_only_after_the_workers_saw_it() {
    let disk = Memory::declared();
    let (mut keeper, _) = disk.start(&pair(), Time(0));
    let on_disk = || {
        let records = disk.read().unwrap().unwrap().records;
        records
            .values()
            .find(|it| it.direction == Direction::In)
            .unwrap()
            .reserved_end
    };
    keeper.extend(&[at(IN, 5000)], Time(SECOND)).unwrap();
    assert_eq!(on_disk(), 10_000);
    let lower = keeper.review(&[at(IN, 5100)], Time(3 * SECOND)).unwrap();
    assert_eq!(
        lower,
        [Grant {
            slot: IN,
            reserved_end: 5150
        }]
    );
    assert_eq!(on_disk(), 10_000);
    // 5200: a worker passed the lower limit before it saw it.
    keeper.review(&[at(IN, 5200)], Time(4 * SECOND)).unwrap();
    assert_eq!(on_disk(), 5200);
}

#[test]
fn a_failed_write_grants_nothing() {
    let disk = Memory::declared();
    let (mut keeper, _) = disk.start(&pair(), Time(0));
    *disk.full.lock().unwrap() = true;
    assert!(keeper.extend(&[at(OUT, 3000)], Time(SECOND)).is_err());
    *disk.full.lock().unwrap() = false;
    let grants = keeper.extend(&[at(OUT, 3000)], Time(SECOND)).unwrap();
    assert_eq!(grants[0].reserved_end, 3000 + 4096);
}

#[test]
fn one_key_serves_one_sa_at_a_time() {
    let disk = Memory::declared();
    let (mut keeper, _) = disk.start(&pair(), Time(0));
    let twin = sa("twin", Direction::Out, 1);
    let refused = keeper.add(&[(SaSlot(2), &twin)], Time(0)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "sa twin: its key is in use by another SA (a key of its own)"
    );
    keeper.remove(OUT);
    let start = keeper.add(&[(SaSlot(2), &twin)], Time(0)).unwrap();
    assert_eq!(start[0].sequence, 4096);
}

#[test]
fn neither_spi_nor_icv_length_nor_mode_makes_a_key_new() {
    let secret = [3; 32];
    let one = sa("one", Direction::Out, 1);
    let mut other = sa("other", Direction::Out, 1);
    other.spi = 0x2002;
    other.suite.encryption = Encryption::AesGcm { bits: 128, icv: 8 };
    assert_eq!(
        identity::key_id(&secret, &one),
        identity::key_id(&secret, &other)
    );
    other.suite.encryption = Encryption::AesCtr { bits: 128 };
    assert_eq!(
        identity::key_id(&secret, &one),
        identity::key_id(&secret, &other)
    );
    assert_ne!(
        identity::key_id(&[4; 32], &one),
        identity::key_id(&secret, &one)
    );
    other.encryption_key = Secret::new(vec![2; 20]);
    assert_ne!(
        identity::key_id(&secret, &one),
        identity::key_id(&secret, &other)
    );
}

#[test]
fn counter_modes_wait_for_init_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let start = |sas: &[SaParameters]| {
        started(Directory::open(&path).unwrap(), sas, Time(0)).map(|(_, it)| it)
    };
    let refused = start(&pair()).unwrap_err();
    assert!(
        matches!(refused, StateError::Undeclared { .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("xipsec state init"),
        "{refused}"
    );
    start(&[mac_only(sa("out", Direction::Out, 1))]).unwrap();
    start(&pair()).unwrap_err();
    init(&path).unwrap();
    start(&pair()).unwrap();
    let refused = init(&path).unwrap_err();
    assert!(matches!(refused, StateError::NotEmpty { .. }), "{refused}");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(RECORDS))), (0o700, 0o600));
}

#[test]
fn init_leaves_a_foreign_directory_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter"), "dear").unwrap();
    assert!(matches!(
        init(folder.path()),
        Err(StateError::NotEmpty { .. })
    ));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_serves_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = Directory::open(folder.path()).unwrap();
    let refused = Directory::open(folder.path()).unwrap_err();
    assert!(matches!(refused, StateError::Locked { .. }), "{refused}");
    drop(first);
    Directory::open(folder.path()).unwrap();
}

#[test]
fn torn_and_garbled_records_are_refused_at_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path()).unwrap();
    let open = || Directory::open(folder.path()).unwrap();
    started(open(), &pair(), Time(0)).unwrap();
    let whole = fs::read(folder.path().join(RECORDS)).unwrap();
    for position in 0..whole.len() {
        let mut garbled = whole.clone();
        garbled[position] ^= 1;
        for bytes in [&whole[..position], &garbled[..]] {
            fs::write(folder.path().join(RECORDS), bytes).unwrap();
            let refused = started(open(), &pair(), Time(0)).err().unwrap();
            assert!(
                matches!(refused, StateError::Damaged { .. }),
                "{position}: {refused}"
            );
            assert!(
                refused.to_string().contains("xipsec state accept-loss"),
                "{refused}"
            );
        }
    }
}

#[test]
fn a_crash_before_the_rename_keeps_the_old_records() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path()).unwrap();
    let open = || Directory::open(folder.path()).unwrap();
    let (_, first) = started(open(), &pair(), Time(0)).unwrap();
    let whole = fs::read(folder.path().join(RECORDS)).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len()] {
        fs::write(folder.path().join(RECORDS), &whole).unwrap();
        fs::write(folder.path().join(NEXT), &whole[..length]).unwrap();
        let (_, second) = started(open(), &pair(), Time(0)).unwrap();
        assert_eq!(second[0].sequence, first[0].reserved_end);
    }
}

#[test]
fn a_loss_is_accepted_with_new_masks() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path()).unwrap();
    let open = || Directory::open(folder.path()).unwrap();
    let (_, first) = started(open(), &pair(), Time(0)).unwrap();
    accept_loss(folder.path(), &pair(), Some("out")).unwrap();
    let (_, second) = started(open(), &pair(), Time(0)).unwrap();
    assert_ne!(first[0].iv_mask, second[0].iv_mask);
    assert_eq!(second[0].sequence, first[0].reserved_end);
    assert_eq!(first[1].iv_mask, second[1].iv_mask);

    fs::write(folder.path().join(RECORDS), "torn").unwrap();
    accept_loss(folder.path(), &pair(), Some("out")).unwrap();
    let refused = started(open(), &pair(), Time(0)).err().unwrap();
    assert!(
        matches!(&refused, StateError::Undeclared { sa, .. } if sa == "in"),
        "{refused}"
    );
    accept_loss(folder.path(), &pair(), None).unwrap();
    let (_, third) = started(open(), &pair(), Time(0)).unwrap();
    assert!(
        first
            .iter()
            .zip(&third)
            .all(|(first, third)| first.iv_mask != third.iv_mask)
    );
    let refused = accept_loss(folder.path(), &pair(), Some("rome")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "sa rome: not in the configuration (the name of one of its SAs)"
    );
}

#[test]
fn recorded_keys_are_known_in_either_direction() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert!(recorded(&missing, &pair()).unwrap().is_empty());
    init(folder.path()).unwrap();
    assert!(recorded(folder.path(), &pair()).unwrap().is_empty());
    let directory = Directory::open(folder.path()).unwrap();
    let used = [sa("out", Direction::Out, 1)];
    let _running = started(directory, &used, Time(0)).unwrap();
    let mirrored = [
        sa("mirror", Direction::In, 1),
        sa("other", Direction::Out, 9),
    ];
    assert_eq!(recorded(folder.path(), &mirrored).unwrap(), ["mirror"]);
    let (shown, others) = show(folder.path(), &pair()).unwrap();
    assert!(shown[0].record.is_some() && shown[1].record.is_none());
    assert_eq!(others, 0);
}

proptest! {
    #[test]
    fn contents_survive_bytes(
        names in prop::collection::vec("[a-z]{1,64}", 0..8),
        end: u64,
        mask: u64,
        window in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut contents = Contents::new(true).unwrap();
        for (index, name) in (0_u8..).zip(names) {
            let key = KeyId([index; 16]);
            contents.records.insert(key, Record {
                key,
                name,
                direction: if index % 2 == 0 { Direction::In } else { Direction::Out },
                reserved_end: end,
                iv_mask: mask,
                boot: [index; 16],
                window: window.clone(),
                carried: Carried { packets: mask, bytes: end, sequence: 7, born: mask ^ end },
            });
        }
        prop_assert_eq!(Contents::from_bytes(&contents.to_bytes()).unwrap(), contents);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(Contents::from_bytes(&bytes).is_err());
    }
}
