//! Goal: what the gateway seals, the Linux kernel opens, and the other way round, for every suite
//! that the kernel has. Method: a kernel with IPsec in a guest, all cells in force at once, manual
//! keys, datagrams of many sizes both ways through each, every byte compared, and the counters of
//! both sides equal packet by packet.

use anyhow::ensure;
use xipsec_tests::algorithms::Transform;
use xipsec_tests::cell::{Cell, Layer, Mode, Near};
use xipsec_tests::config::Family;
use xipsec_tests::expect::with_guest;
use xipsec_tests::kernel_peer::KernelPeer;

/// Around every alignment, and up to what fits a wire of 1500 bytes in the longest wrapping.
const SIZES: [usize; 12] = [0, 1, 2, 3, 5, 8, 14, 15, 64, 511, 1024, 1300];

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Every transform in one mode, over both IP versions, with and without extended numbers.
fn all(transforms: &[Transform], mode: Mode) -> Vec<Cell> {
    let mut cells = Vec::new();
    for transform in transforms {
        for outer in FAMILIES {
            for esn in [false, true] {
                cells.push(Cell {
                    number: u32::try_from(cells.len()).unwrap_or(u32::MAX),
                    layers: vec![Layer {
                        transform: *transform,
                        mode,
                    }],
                    outer,
                    esn,
                    encapsulated: false,
                    near: Near::Host,
                });
            }
        }
    }
    cells
}

/// Sends through all cells and says what happened.
fn agree(name: &str, transforms: &[Transform], cells: fn(&[Transform]) -> Vec<Cell>) {
    with_guest(name, || {
        let mut peer = KernelPeer::new()?;
        let refused = peer.refused(transforms)?;
        for (transform, why) in &refused {
            eprintln!(
                "{name}: not in the guest's kernel: {}: {why}",
                transform.name()
            );
        }
        let known = |transform: &&Transform| refused.iter().all(|(other, _)| other != *transform);
        let transforms: Vec<Transform> = transforms.iter().filter(known).copied().collect();
        let cells = cells(&transforms);
        let count = cells.len();
        peer.install(cells)?;
        let findings = peer.exercise(&SIZES)?;
        let wrong: Vec<&str> = findings
            .iter()
            .filter_map(|finding| finding.wrong.as_deref())
            .collect();
        ensure!(
            wrong.is_empty(),
            "{} of {} ways failed:\n{}\n{}",
            wrong.len(),
            findings.len(),
            wrong.join("\n"),
            peer.state()
        );
        let repeated = findings.iter().map(|finding| finding.repeated).sum();
        let packets = peer.compare(repeated)?;
        let right: u64 = findings.iter().map(|finding| finding.right).sum();
        eprintln!("{name}: {count} cells, {right} datagrams there and back");
        eprintln!("{name}: {packets} packets, {repeated} datagrams sent again");
        peer.gateway.stop()
    });
}

#[test]
fn esp_tunnels() {
    agree("esp_tunnels", &Transform::esp(), |transforms| {
        all(transforms, Mode::Tunnel)
    });
}
