//! Goal: every algorithm of ESP and AH, in both modes, over both IP versions, with and without
//! extended sequence numbers, in both directions. Method: one `replay` for each mode, version and
//! kind of number with an SA for every suite, each told apart by its policy; scapy, with second
//! implementations of what it lacks, at the far end.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xipsec_tests::config::{Config, Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, IpFields, UDP};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::{peer, suite};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Payload sizes around every alignment.
const SIZES: [usize; 6] = [0, 1, 2, 3, 62, 1000];

/// One column of the matrix: all suites in this mode, over this IP version.
#[derive(Clone, Copy, Debug)]
struct Column {
    transport: bool,
    outer: Family,
    esn: bool,
    outbound: bool,
}

fn columns(outbound: bool) -> impl Iterator<Item = Column> {
    let modes = [false, true].into_iter();
    modes.flat_map(move |transport| {
        FAMILIES.into_iter().flat_map(move |outer| {
            [false, true].map(|esn| Column {
                transport,
                outer,
                esn,
                outbound,
            })
        })
    })
}

impl Column {
    fn sas(self) -> Vec<Sa> {
        let suites = suite::every_esp().into_iter().chain(suite::every_ah());
        let sides = match self.outbound {
            true => [&LEFT, &RIGHT],
            false => [&RIGHT, &LEFT],
        };
        (0x1100..)
            .zip(suites)
            .map(|(spi, suite)| {
                let mut sa = Sa::fixed(spi, sides[0], sides[1], self.outer, suite);
                sa.name = format!("sa-{spi:x}");
                sa.esn = self.esn;
                // The upper half of the number moves during the test.
                sa.extra = vec![format!("sequence = {}", self.before())];
                if self.transport {
                    sa.mode = "transport";
                }
                sa
            })
            .collect()
    }

    /// The last number used before the test.
    fn before(self) -> u64 {
        if self.esn { (1 << 32) - 3 } else { 0 }
    }

    fn config(self, sas: &[Sa]) -> Config {
        let mut config = replay::network(&["allow_legacy = true".to_owned()]);
        let direction = if self.outbound { "out" } else { "in" };
        for (at, sa) in sas.iter().enumerate() {
            config.sa(sa, direction);
            let uses = format!("sa = [\"{}\"]", sa.name);
            for family in FAMILIES {
                let (name, index) = (format!("p-{at}-{family:?}"), family.index());
                let keys = [name.as_str(), direction, "protect"];
                if !self.transport {
                    let remote = match family {
                        Family::V4 => format!("10.9.{at}.0/24"),
                        Family::V6 => format!("fd00:9:{at:x}::/64"),
                    };
                    let nets = [LEFT.net[index], remote.as_str()];
                    config.policy(keys, nets, 100, std::slice::from_ref(&uses));
                } else if family == self.outer {
                    let ends = [LEFT.wan[index], RIGHT.wan[index]];
                    let port = format!("remote_port = {}", 20_000 + at);
                    let extra = [uses.clone(), "protocol = \"udp\"".to_owned(), port];
                    config.policy(keys, ends, 100, &extra);
                }
            }
        }
        config
    }

    /// What goes through the SA at that place.
    fn packets(self, at: usize) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for family in FAMILIES {
            if self.transport && family != self.outer {
                continue;
            }
            let index = family.index();
            let remote = match family {
                Family::V4 => format!("10.9.{at}.2"),
                Family::V6 => format!("fd00:9:{at:x}::2"),
            };
            let ends = match self.transport {
                true => [LEFT.wan[index], RIGHT.wan[index]],
                false => [LEFT.host[index], remote.as_str()],
            };
            let ports = [4000, 20_000 + u16::try_from(at)?];
            for size in SIZES {
                let data: Vec<u8> = (0_u8..=255).cycle().take(size).collect();
                let fields = IpFields::default();
                let (ends, ports) = match self.outbound {
                    true => (ends, ports),
                    false => ([ends[1], ends[0]], [ports[1], ports[0]]),
                };
                let payload = packets::udp(ends[0], ends[1], ports, &data)?;
                all.push(packets::ip(ends[0], ends[1], UDP, fields, &payload)?);
            }
        }
        Ok(all)
    }

    /// The packet when a gateway has forwarded it: the machine's own keep their hop limit.
    fn lowered(self, packet: &[u8]) -> Vec<u8> {
        if self.transport {
            packet.to_vec()
        } else {
            packets::one_hop_less(packet)
        }
    }
}

//= test T05
//= test T46
//= test T144
//= test T146
#[test]
fn scapy_opens_every_suite_that_the_gateway_seals() {
    with_scapy("scapy_opens_every_suite_that_the_gateway_seals", || {
        for column in columns(true) {
            seals(column).with_context(|| format!("{column:?}"))?;
        }
        Ok(())
    });
}

fn seals(column: Column) -> Result<()> {
    let sas = column.sas();
    let mut replay = Replay::new(&column.config(&sas))?;
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for at in 0..sas.len() {
        for packet in column.packets(at)? {
            sent.push(replay::from_host(sent.len() as u64, &packet));
            expected.push(column.lowered(&packet));
        }
    }
    let count = sent.len() as u64;
    replay.input(if column.transport { "host" } else { "lan0" }, sent);
    let result = replay.run()?;
    ensure!(result.wan.len() as u64 == count, "{}", result.json);
    let opened = peer::open(&sas, &replay.file("out-wan0.pcap"))?;
    ensure!(
        opened.count("failed") == 0 && opened.count("repeated") == 0,
        "{}",
        opened.report
    );
    let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
    ensure!(inner == expected, "the packets differ");
    let each = expected.len() / sas.len();
    let numbers: Vec<u64> = (column.before() + 1..).take(each).collect();
    for sa in &sas {
        let name = sa.suite.name();
        let used = &opened.report["sequences"][sa.spi.to_string()];
        ensure!(*used == json!(numbers), "{name}: {used}");
        ensure!(sa_member(&result.json, &sa.name, "packets")? == each as u64);
        if sa.protocol == "esp" && !column.transport {
            let frames = result.wan.iter().zip(&expected);
            let own = frames.filter(|(frame, _)| spi(frame) == sa.spi);
            let header = if column.outer == Family::V4 { 20 } else { 40 };
            for (frame, packet) in own {
                let length = sa.suite.sealed_length(header, packet.len());
                ensure!(
                    frame.packet().len() == length,
                    "{name}: more padding than aligns"
                );
            }
        }
    }
    Ok(())
}

fn spi(frame: &Frame) -> u32 {
    let packet = frame.packet();
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

//= test T05
//= test T46
//= test T144
//= test T146
#[test]
fn the_gateway_opens_every_suite_that_scapy_seals() {
    with_scapy("the_gateway_opens_every_suite_that_scapy_seals", || {
        for column in columns(false) {
            opens(column).with_context(|| format!("{column:?}"))?;
        }
        Ok(())
    });
}

fn opens(column: Column) -> Result<()> {
    let sas = column.sas();
    let mut replay = Replay::new(&column.config(&sas))?;
    let (mut plain, mut crafts, mut expected) = (Vec::new(), Vec::<Value>::new(), Vec::new());
    for (at, sa) in sas.iter().enumerate() {
        for (number, packet) in (column.before() + 1..).zip(column.packets(at)?) {
            plain.push(replay::from_peer(plain.len() as u64, &packet));
            crafts.push(json!({"number": number, "spis": [sa.spi]}));
            expected.push(column.lowered(&packet));
        }
    }
    let sealed = peer::seal_through(&sas, &plain, &crafts, replay.directory())?;
    replay.input("wan0", sealed);
    let result = replay.run()?;
    let frames = if column.transport {
        &result.host
    } else {
        &result.lan
    };
    let opened: Vec<&[u8]> = frames.iter().map(Frame::packet).collect();
    ensure!(
        opened == expected,
        "what was opened differs: {}",
        result.json
    );
    for sa in &sas {
        let each = (expected.len() / sas.len()) as u64;
        ensure!(sa_member(&result.json, &sa.name, "packets")? == each);
        ensure!(sa_member(&result.json, &sa.name, "sequence")? == column.before() + each);
    }
    Ok(())
}
