//! `mistakes.txt`, case by case; the values of a whole file; files that cannot be read.

use std::fs;
use std::path::Path;

use ipsec::crypto::suite::{Encryption, Integrity};
use ipsec::packet::{Version, address_bits};
use ipsec::policy::{Action, AddressRange, AddressSelector, PortSelector};
use ipsec::sa::association::Direction;

use super::{BASE, read, told};
use crate::config::{Purpose, load, not_built};
use crate::route::PortIndex;

const CASES: &str = include_str!("mistakes.txt");

/// One case of the file.
struct Case<'t> {
    title: &'t str,
    purpose: Purpose,
    edits: Vec<&'t str>,
    answers: Vec<&'t str>,
}

fn cases() -> Vec<Case<'static>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in CASES.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case {
                title,
                purpose: Purpose::Check,
                edits: Vec::new(),
                answers: Vec::new(),
            });
        } else if let Some(case) = cases.last_mut() {
            match line.strip_prefix("> ") {
                Some(answer) => case.answers.push(answer),
                None if line == "for replay" => case.purpose = Purpose::Replay,
                None if line.is_empty() => {}
                None => case.edits.push(line),
            }
        }
    }
    cases
}

/// The base with a case's edits, which count lines of the base.
fn edited(edits: &[&str]) -> String {
    let mut lines: Vec<Option<String>> = BASE.lines().map(|line| Some(line.to_owned())).collect();
    for edit in edits {
        let end = edit
            .find(|it: char| !it.is_ascii_digit() && it != '-')
            .unwrap();
        let (first, last) = edit[..end]
            .split_once('-')
            .unwrap_or((&edit[..end], &edit[..end]));
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let text = edit[end + 1..].trim_start().replace('|', "\n");
        if edit[end..].starts_with('+') {
            let line = lines[last - 1].get_or_insert_default();
            line.push('\n');
            line.push_str(&text);
        } else {
            lines[first - 1..last].fill(None);
            lines[first - 1] = (!text.is_empty()).then_some(text);
        }
    }
    lines
        .into_iter()
        .flatten()
        .map(|line| line + "\n")
        .collect()
}

#[test]
fn every_mistake_is_told_with_line_key_and_what_is_accepted() {
    let mut blessed: String = CASES
        .split_inclusive('\n')
        .take_while(|line| !line.starts_with("=="))
        .collect();
    let mut wrong = Vec::new();
    for case in cases() {
        let answers = told(&edited(&case.edits), case.purpose);
        blessed.push_str(&format!("== {}\n", case.title));
        if case.purpose == Purpose::Replay {
            blessed.push_str("for replay\n");
        }
        for edit in &case.edits {
            blessed.push_str(&format!("{edit}\n"));
        }
        for answer in &answers {
            blessed.push_str(&format!("> {answer}\n"));
        }
        blessed.push('\n');
        if answers != case.answers {
            wrong.push(format!("{}\n{answers:#?}", case.title));
        }
    }
    if std::env::var_os("BLESS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/mistakes.txt");
        fs::write(file, blessed.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_of_a_file_come_in_one_run_in_order_of_line() {
    let text = edited(&[
        "2: state_dir = 7",
        "3: speed = 1",
        "8: mac = \"none\"",
        "20: spi = 255",
        "22: destination = \"2001:db8::1\"",
        "24: encryption_key = \"00\"",
        "35-36:",
        "42: local = \"10.1.0.1/16\"",
        "45: sa = [\"rome\"]",
        "53:",
        "58: port = \"wan9\"",
        "64: mac = 1",
    ]);
    let keys: Vec<String> = read(&text, Purpose::Check)
        .unwrap_err()
        .iter()
        .map(|error| format!("{} {}", error.line, error.key))
        .collect();
    // Lines that were taken out move up what follows: 35 and 36, then 53.
    let expected = [
        "2 state_dir",
        "3 speed",
        "8 mac",
        "20 spi",
        "22 destination",
        "24 encryption_key",
        "26 integrity",
        "40 local",
        "43 sa",
        "45 priority",
        "55 port",
        "61 mac",
    ];
    assert_eq!(keys, expected);
}

//= test T109
#[test]
fn a_file_without_mistakes_says_what_it_says() {
    let text = BASE.replace(
        "[\"paris-in\"]",
        "[\"paris-in\"]\nprotocol = \"tcp\"\nlocal_port = [22, \"80-443\"]",
    );
    let config = read(&text, Purpose::Replay).unwrap();
    assert_eq!(config.file, Path::new("base.toml"));
    assert_eq!(config.port("lan0"), Some(PortIndex(1)));
    assert_eq!(config.ports[0].mac, Some([2, 0, 0, 0, 0, 1]));
    let (out, back) = (&config.sas[0], &config.sas[1]);
    assert_eq!((out.direction, out.spi), (Direction::Out, 0x1001));
    assert_eq!(out.encryption_key.expose(), (0..20).collect::<Vec<u8>>());
    assert_eq!(
        out.suite.encryption,
        Encryption::AesGcm { bits: 128, icv: 16 }
    );
    assert_eq!(back.suite.integrity, Some(Integrity::Sha1_96));
    assert_eq!(
        back.integrity_key.expose(),
        (0x20..0x34).collect::<Vec<u8>>()
    );
    assert_eq!(
        (back.replay_window, back.hop_limit, back.follow_peer),
        (64, 64, true)
    );
    let policy = &config.policies[1];
    assert_eq!(
        (policy.action, policy.direction),
        (Action::Protect, Direction::In)
    );
    assert_eq!(policy.bundles, [["paris-in"]]);
    let local = AddressRange {
        version: Version::V4,
        first: address_bits("10.1.0.0".parse().unwrap()),
        last: address_bits("10.1.255.255".parse().unwrap()),
    };
    assert_eq!(policy.selector.local, AddressSelector::Ranges(vec![local]));
    let ports = PortSelector::List {
        opaque: false,
        ranges: vec![(22, 22), (80, 443)],
    };
    assert_eq!(
        (policy.selector.protocol, &policy.selector.local_port),
        (Some(6), &ports)
    );
    assert_eq!(config.routes[0].via, Some("192.0.2.2".parse().unwrap()));
    assert_eq!(config.neighbors[0].mac, [2, 0, 0, 0, 0, 3]);
    assert_eq!(not_built(&config), []);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn icmp_types_and_codes_make_one_range() {
    let icmp = |more: &str| {
        let text = BASE.replace(
            "[\"paris-in\"]",
            &format!("[\"paris-in\"]\nprotocol = \"icmp\"\n{more}"),
        );
        read(&text, Purpose::Check).unwrap().policies[1]
            .selector
            .icmp
    };
    assert_eq!(icmp(""), None);
    assert_eq!(icmp("icmp_type = 8"), Some((0x0800, 0x08ff)));
    assert_eq!(
        icmp("icmp_type = \"3-4\"\nicmp_code = \"1-2\""),
        Some((0x0301, 0x0402))
    );
}

#[test]
fn keys_come_from_files_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    fs::write(
        folder.path().join("out.key"),
        format!("{}\n", "Ab".repeat(20)),
    )
    .unwrap();
    let key = "encryption_key = \"000102030405060708090a0b0c0d0e0f10111213\"";
    fs::write(
        &file,
        BASE.replace(key, "encryption_key_file = \"out.key\""),
    )
    .unwrap();
    let config = load(&file, Purpose::Run).unwrap();
    assert_eq!(config.sas[0].encryption_key.expose(), [0xab; 20]);
    for (text, why) in [
        ("ab".repeat(3000), "unreadable: longer than 4096 bytes"),
        (String::from("0x00"), "the file is not hex"),
    ] {
        fs::write(folder.path().join("out.key"), text).unwrap();
        let errors = load(&file, Purpose::Run).unwrap_err();
        assert_eq!((errors.len(), errors[0].line), (1, 24));
        assert!(errors[0].why.starts_with(why), "{}", errors[0]);
    }
}

#[test]
fn files_that_cannot_be_read_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let told = || load(&file, Purpose::Run).unwrap_err()[0].to_string();
    let name = file.display();
    let why =
        "unreadable: No such file or directory (os error 2) (the path of a file that may be read)";
    assert_eq!(told(), format!("{name}: {why}"));
    fs::write(&file, b"# one\n# two \xff\n").unwrap();
    assert_eq!(
        told(),
        format!("{name}:2: not UTF-8 (a text file: TOML is UTF-8)")
    );
    fs::write(&file, b"").unwrap();
    let sides = load(&file, Purpose::Run).unwrap_err();
    assert_eq!(
        sides.iter().map(|error| error.line).collect::<Vec<_>>(),
        [1, 1]
    );
}

#[test]
fn what_is_not_built_is_told_with_its_line() {
    let text = edited(&[
        "3: keys = \"kernel\"|metrics = \"127.0.0.1:9469\"",
        "22: destination = \"239.1.2.3\"",
        "24+ udp_encapsulation = {}|keepalive_seconds = 20",
    ]);
    let config = read(&text, Purpose::Check).unwrap();
    let told: Vec<String> = not_built(&config).iter().map(ToString::to_string).collect();
    let expected = [
        "base.toml:3: keys: not built in this version (file)",
        "base.toml:4: metrics: not built in this version (leave it out)",
        "base.toml:23: destination: not built in this version (a unicast address)",
    ];
    assert_eq!(told, expected);
}

#[test]
fn warnings_are_told_where_they_arise() {
    let text = edited(&[
        "2: state_dir = \"\"|guard = \"open\"",
        "3: allow_legacy = true",
        "23: encryption = \"3des\"|integrity = \"sha1_96\"|\
         integrity_key = \"202122232425262728292a2b2c2d2e2f30313233\"",
        "24: encryption_key = \"000102030405060708090a0b0c0d0e0f1011121314151617\"",
        "36+ replay_window = 0",
        "45: sa = [\"other\"]",
        "54+ [[sa]]|name = \"other\"|direction = \"out\"|protocol = \"esp\"|\
         mode = \"tunnel\"|spi = 256|\
         source = \"192.0.2.1\"|destination = \"192.0.2.2\"|\
         encryption = \"null\"|integrity = \"sha1_96\"|\
         integrity_key = \"202122232425262728292a2b2c2d2e2f30313234\"",
    ]);
    let told = told(&text, Purpose::Check);
    let places: Vec<&str> = told
        .iter()
        .map(|line| line.rsplit_once(": ").map_or("", |it| it.0))
        .collect();
    let expected = [
        "warning: base.toml:2: state_dir",
        "warning: base.toml:3: guard",
        "warning: base.toml:16: sa: no policy uses SA \"paris-out\"",
        "warning: base.toml:24: encryption: 3des is legacy (RFC 8221)",
        "warning: base.toml:39: integrity_key: the same key as in line 26",
        "warning: base.toml:40: replay_window: anti-replay is off",
    ];
    assert_eq!(places.len(), expected.len(), "{told:#?}");
    for (line, expected) in told.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
}
