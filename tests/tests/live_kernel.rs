//! Goal: what the gateway seals, the Linux kernel opens, and the other way round: every suite that
//! the kernel has, ESP (in UDP, too) and AH, in tunnel and transport mode, alone and in bundles.
//! Method: a kernel with IPsec in a guest, all cells in force at once, manual keys, datagrams of
//! many sizes both ways through each, every byte compared, and both sides' counters equal packet
//! by packet.
//!
//! Each transform goes through each mode over each IP version once, every other time with extended
//! numbers; with `XIPSEC_KERNEL_MATRIX=whole` in the environment always with and without.

use anyhow::{Context as _, Result, ensure};
use xipsec_tests::algorithms::{COMBINED, MACS, SEPARATE, Transform};
use xipsec_tests::cell::{Cell, Flaw, Layer, Mode};
use xipsec_tests::config::Family;
use xipsec_tests::expect::with_guest;
use xipsec_tests::kernel_peer::KernelPeer;

/// Around every alignment, and up to what fits a wire of 1500 bytes in the longest wrapping.
const SIZES: [usize; 12] = [0, 1, 2, 3, 5, 8, 14, 15, 64, 511, 1024, 1300];

/// Where alignment is no matter, or one of several; what two SAs wrap is shorter.
const FEW_SIZES: [usize; 5] = [0, 1, 15, 511, 1150];

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

const fn layer(transform: Transform, mode: Mode) -> Layer {
    Layer { transform, mode }
}

/// Which cells have extended numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Every other one.
    InTurns,
    /// Each stands there with and without.
    Both,
}

/// Every list of layers over both IP versions.
fn cells(kinds: impl IntoIterator<Item = Vec<Layer>>, numbers: Numbers) -> Vec<Cell> {
    let whole = std::env::var("XIPSEC_KERNEL_MATRIX").is_ok_and(|value| value == "whole");
    let whole = whole || numbers == Numbers::Both;
    let mut cells = Vec::new();
    for (turn, layers) in kinds.into_iter().enumerate() {
        for outer in FAMILIES {
            for esn in [false, true] {
                if whole || esn == ((turn + turn / 4 + outer.index()) % 2 == 1) {
                    let number = u32::try_from(cells.len()).unwrap_or(u32::MAX);
                    cells.push(Cell::new(number, layers.clone(), outer, esn));
                }
            }
        }
    }
    cells
}

/// What the guest's kernel has of `transforms`.
fn known(peer: &mut KernelPeer, name: &str, transforms: Vec<Transform>) -> Result<Vec<Transform>> {
    let refused = peer.refused(&transforms)?;
    for (transform, why) in &refused {
        let transform = transform.name();
        eprintln!("{name}: not in the guest's kernel: {transform}: {why}");
    }
    let known = |transform: &Transform| refused.iter().all(|(other, _)| other != transform);
    Ok(transforms.into_iter().filter(known).collect())
}

/// Sends through all cells and says what happened.
fn agree(
    name: &str,
    sizes: &[usize],
    transforms: Vec<Transform>,
    cells: impl Fn(&[Transform]) -> Vec<Cell>,
) {
    with_guest(name, || {
        let mut peer = KernelPeer::new()?;
        let transforms = known(&mut peer, name, transforms)?;
        let cells = cells(&transforms);
        let count = cells.len();
        peer.install(cells)?;
        let findings = peer.exercise(sizes)?;
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
        let compared = peer.compare(&findings);
        let (packets, missed) = compared.with_context(|| peer.state())?;
        let right: u64 = findings.iter().map(|finding| finding.right).sum();
        eprintln!("{name}: {count} cells, {right} datagrams there and back");
        eprintln!("{name}: {packets} packets, {missed}");
        peer.gateway.stop()
    });
}

#[test]
fn esp_tunnels() {
    agree("esp_tunnels", &SIZES, Transform::esp(), |transforms| {
        let kinds = transforms.iter().map(|it| vec![layer(*it, Mode::Tunnel)]);
        cells(kinds, Numbers::InTurns)
    });
}

#[test]
fn esp_transport() {
    agree("esp_transport", &SIZES, Transform::esp(), |transforms| {
        let kinds = transforms
            .iter()
            .map(|it| vec![layer(*it, Mode::Transport)]);
        cells(kinds, Numbers::InTurns)
    });
}

//= test T39
//= test T41
//= test T46
//= test T49
#[test]
fn ah_both_modes() {
    agree("ah_both_modes", &FEW_SIZES, Transform::ah(), |transforms| {
        let modes = [Mode::Tunnel, Mode::Transport];
        let kinds = transforms
            .iter()
            .flat_map(|it| modes.map(|mode| vec![layer(*it, mode)]));
        cells(kinds, Numbers::Both)
    });
}

//= test T67
//= test T135
//= test T140
#[test]
fn esp_in_udp() {
    agree("esp_in_udp", &FEW_SIZES, Transform::esp(), |transforms| {
        let modes = [Mode::Tunnel, Mode::Transport];
        // Every fifth, so that all kinds of ciphers come.
        let kinds = transforms.iter().step_by(5);
        let kinds = kinds.flat_map(|it| modes.map(|mode| vec![layer(*it, mode)]));
        let mut cells = cells(kinds, Numbers::InTurns);
        cells.iter_mut().for_each(|cell| cell.encapsulated = true);
        cells
    });
}

//= test T50
#[test]
fn bundles() {
    let transforms = Transform::esp().into_iter().chain(Transform::ah());
    agree("bundles", &FEW_SIZES, transforms.collect(), |transforms| {
        let esp = transforms.iter().filter(|it| it.protocol() == "esp");
        // Every seventh, so that all kinds of ciphers come.
        let mut esp = esp
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .step_by(7)
            .cycle();
        let mut kinds = Vec::new();
        for ah in transforms.iter().filter(|it| it.protocol() == "ah") {
            for inner in [Mode::Tunnel, Mode::Transport] {
                for outer in [Mode::Tunnel, Mode::Transport] {
                    let inner = esp.next().map(|esp| layer(esp, inner));
                    kinds.push(inner.into_iter().chain([layer(*ah, outer)]).collect());
                }
            }
        }
        cells(kinds, Numbers::InTurns)
    });
}

/// RFC 4301 section 4.3 leaves it to policy what is in what: here ESP around AH. In a tunnel alone:
/// behind ESP in transport mode Linux verifies AH before it puts AH's number back into the IP
/// header (`ah_input` runs before `xfrm4_transport_finish`), and refuses what RFC 4302 wants
/// covered (`XfrmInStateProtoError`). What it sends that way itself the gateway opens.
//= test T50
#[test]
fn esp_around_ah() {
    let transforms = Transform::esp().into_iter().chain(Transform::ah());
    let name = "esp_around_ah";
    agree(name, &FEW_SIZES, transforms.collect(), |transforms| {
        let of = |protocol| {
            transforms
                .iter()
                .filter(move |it| it.protocol() == protocol)
        };
        // Every fifth, so that all kinds of ciphers come.
        let mut esp = of("esp").step_by(5).cycle();
        let mut kinds = Vec::new();
        for ah in of("ah").step_by(2) {
            for inner in [Mode::Tunnel, Mode::Transport] {
                let outer = esp.next().map(|esp| layer(*esp, Mode::Tunnel));
                kinds.push([layer(*ah, inner)].into_iter().chain(outer).collect());
            }
        }
        cells(kinds, Numbers::InTurns)
    });
}

/// Datagrams that each side's stack would cut: transport mode carries them whole, and what is cut
/// is the sealed packet.
//= test T14 (RFC 4303 section 3.3.4)
#[test]
fn longer_than_the_way_in_transport_mode() {
    const SIZES: [usize; 4] = [1400, 1500, 3000, 7000];
    let name = "longer_than_the_way_in_transport_mode";
    let transforms = Transform::esp().into_iter().step_by(9);
    let transforms = transforms.chain(Transform::ah().into_iter().step_by(3));
    agree(name, &SIZES, transforms.collect(), |transforms| {
        let kinds = transforms
            .iter()
            .map(|it| vec![layer(*it, Mode::Transport)]);
        cells(kinds, Numbers::InTurns)
    });
}

/// The oracle can say no: with a wrong key, or the other kind of numbers, nothing goes through in
/// either direction, each packet is refused for that, and a good cell beside them works.
#[test]
fn disagreements_are_noticed() {
    with_guest("disagreements_are_noticed", || {
        let gcm = Transform::Esp(COMBINED[0], None);
        let cbc = Transform::Esp(SEPARATE[1], Some(MACS[1]));
        let ah = Transform::Ah(MACS[2]);
        let mut cells = Vec::new();
        for transform in [gcm, cbc, ah] {
            for mode in [Mode::Tunnel, Mode::Transport] {
                for (flaw, esn) in [
                    (None, false),
                    (Some(Flaw::Key), false),
                    (Some(Flaw::Esn), false),
                    (Some(Flaw::Esn), true),
                ] {
                    let number = u32::try_from(cells.len())?;
                    let outer = FAMILIES[cells.len() / 4 % 2];
                    let cell = Cell::new(number, vec![layer(transform, mode)], outer, esn);
                    cells.push(Cell { flaw, ..cell });
                }
            }
        }
        let mut peer = KernelPeer::new()?;
        let count = cells.iter().filter(|cell| cell.flaw.is_some()).count();
        peer.install(cells)?;
        let findings = peer.exercise(&FEW_SIZES)?;
        for finding in &findings {
            let through = finding.right > 0 || finding.wrong.is_none();
            ensure!(finding.flawed != through, "{finding:?}\n{}", peer.state());
        }
        let [ours, theirs] = peer.refusals()?;
        ensure!(ours > 0 && theirs > 0, "{ours} and {theirs}");
        eprintln!("disagreements_are_noticed: {count} cells, {ours} packets refused here");
        eprintln!("disagreements_are_noticed: {theirs} packets refused by the kernel");
        peer.gateway.stop()
    });
}
