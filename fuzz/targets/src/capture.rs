//! Capture files. The reader takes paths, so each input becomes a file first.

use std::cell::RefCell;
use std::path::PathBuf;

use xipsec::offline::capture::{Writer, read};

use crate::packets;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = packets::samples()
        .iter()
        .take(4)
        .map(|packet| packets::frame([2; 6], packet))
        .collect();
    let mut seeds = Vec::new();
    for ending in ["pcap", "pcapng"] {
        let path = path(ending);
        let mut writer = Writer::create(&path).unwrap();
        for (timestamp, frame) in (1_700_000_000_123_456_789..).zip(&frames) {
            writer.write(timestamp, frame, Some("malformed")).unwrap();
        }
        writer.finish().unwrap();
        seeds.push(std::fs::read(&path).unwrap());
        std::fs::remove_file(path).unwrap();
    }
    // The other byte order and the other resolution of pcap.
    let mut big = vec![0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4];
    big.extend([0; 8]);
    big.extend([
        0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 4, 1, 2, 3, 4,
    ]);
    seeds.push(big);
    seeds
}

/// A file of this thread and process.
fn path(ending: &str) -> PathBuf {
    let thread = std::thread::current().id();
    let name = format!("xipsec-fuzz-{}-{thread:?}.{ending}", std::process::id());
    std::env::temp_dir().join(name)
}

/// The input's file, gone with the thread.
struct Input(PathBuf);

impl Drop for Input {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap_or_default();
    }
}

thread_local! {
    static INPUT: RefCell<Option<Input>> = const { RefCell::new(None) };
}

pub(crate) fn run(bytes: &[u8]) {
    INPUT.with_borrow_mut(|input| {
        let file = &input.get_or_insert_with(|| Input(path("input"))).0;
        std::fs::write(file, bytes).unwrap();
        match read(file) {
            Ok(contents) => {
                let total: usize = contents
                    .packets
                    .iter()
                    .map(|packet| packet.frame.len())
                    .sum();
                assert!(total <= bytes.len(), "more bytes than the file has");
                assert!(contents.damage.is_none_or(|why| !why.contains('\n')));
            }
            Err(why) => assert!(!why.is_empty() && !why.contains('\n'), "{why:?}"),
        }
    });
}
