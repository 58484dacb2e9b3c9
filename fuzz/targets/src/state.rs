//! What outlives a restart: the state file with a checksum that is right, and saved windows.

use ipsec::sa::association::Direction;
use ipsec::sa::replay::SavedWindow;
use ring::digest;
use xipsec::state::{Carried, Contents, KeyId, Record};

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut contents = Contents {
        secret: [7; 32],
        declared: true,
        records: std::collections::BTreeMap::new(),
    };
    let empty = contents.to_bytes();
    for number in 0..3 {
        let record = Record {
            key: KeyId([number; 16]),
            name: format!("sa-{number}"),
            direction: if number == 0 {
                Direction::Out
            } else {
                Direction::In
            },
            reserved_end: 1 << (number * 20),
            iv_mask: 5,
            boot: [number; 16],
            window: vec![number; usize::from(number) * 9],
            carried: Carried {
                packets: number.into(),
                ..Carried::default()
            },
        };
        contents.records.insert(record.key, record);
    }
    let body = |bytes: &[u8]| bytes[..bytes.len() - 32].to_vec();
    vec![body(&empty), body(&contents.to_bytes()), vec![0; 40]]
}

pub(crate) fn run(bytes: &[u8]) {
    let checksum = digest::digest(&digest::SHA256, bytes);
    let whole = [bytes, checksum.as_ref()].concat();
    if let Ok(contents) = Contents::from_bytes(&whole) {
        let again = Contents::from_bytes(&contents.to_bytes());
        assert_eq!(again.as_ref(), Ok(&contents));
    }
    assert!(Contents::from_bytes(bytes).is_err() || bytes.len() > 32);
    if let Some(window) = SavedWindow::from_bytes(bytes) {
        let again = window.to_bytes();
        assert_eq!(
            SavedWindow::from_bytes(&again).map(|it| it.to_bytes()),
            Some(again)
        );
    }
}
