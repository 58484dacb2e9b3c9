//! Whatever the bytes: no panic, no key in any message. And the files that we hand out are clean.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::BASE;
use crate::config::{Purpose, load, not_built, parse};

/// Long enough to tell a piece of a key from a word or a number.
const PIECE: usize = 16;

/// The keys of the base.
const KEYS: [&str; 2] = [
    "000102030405060708090a0b0c0d0e0f10111213",
    "202122232425262728292a2b2c2d2e2f30313233",
];

/// Everything that reading some bytes could ever print.
fn printed(bytes: &[u8]) -> String {
    let bytes = Zeroizing::new(bytes.to_vec());
    match parse(Path::new("base.toml"), bytes, Purpose::Check) {
        // Not its names: an operator may call an SA by hex digits, and then they are its name.
        Ok(config) => format!("{:?} {:?}", config.warnings, not_built(&config)),
        Err(errors) => errors
            .iter()
            .map(|error| format!("{error}\n{error:?}\n"))
            .collect(),
    }
}

fn tells_a_key(printed: &str) -> bool {
    let printed = printed.to_ascii_lowercase();
    let pieces = KEYS.iter().flat_map(|key| key.as_bytes().windows(PIECE));
    pieces.into_iter().any(|piece| {
        let piece = std::str::from_utf8(piece).unwrap_or("?");
        printed.contains(piece)
    })
}

#[derive(Clone, Debug)]
enum Mutation {
    /// Another byte.
    Put(prop::sample::Index, u8),
    /// A byte less.
    Cut(prop::sample::Index),
    /// A byte more.
    Insert(prop::sample::Index, u8),
    /// A key in another place.
    Key(prop::sample::Index, usize),
    /// A line gone, or doubled.
    Line(prop::sample::Index, bool),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    let mark = prop::sample::select(b"\"'=[]{}#,.\n\\ 0afx\xff".to_vec());
    prop_oneof![
        (place(), mark.clone()).prop_map(|(place, mark)| Mutation::Put(place, mark)),
        place().prop_map(Mutation::Cut),
        (place(), mark).prop_map(|(place, mark)| Mutation::Insert(place, mark)),
        (place(), 0..KEYS.len()).prop_map(|(place, key)| Mutation::Key(place, key)),
        (place(), any::<bool>()).prop_map(|(place, twice)| Mutation::Line(place, twice)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    match mutation {
        Mutation::Put(place, mark) => {
            let place = place.index(bytes.len());
            bytes[place] = *mark;
        }
        Mutation::Cut(place) => {
            bytes.remove(place.index(bytes.len()));
        }
        Mutation::Insert(place, mark) => bytes.insert(place.index(bytes.len()), *mark),
        Mutation::Key(place, key) => {
            // In place of a quoted word, where a person would paste it.
            let quotes: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'"').collect();
            if quotes.len() > 1 {
                let first = place.index(quotes.len() - 1);
                let word = quotes[first] + 1..quotes[first + 1];
                bytes.splice(word, KEYS[*key].bytes());
            }
        }
        Mutation::Line(place, twice) => {
            let mut lines: Vec<Vec<u8>> = bytes
                .split(|byte| *byte == b'\n')
                .map(<[u8]>::to_vec)
                .collect();
            let place = place.index(lines.len());
            if *twice {
                lines.insert(place, lines[place].clone());
            } else {
                lines.remove(place);
            }
            *bytes = lines.join(&b'\n');
        }
    }
    if bytes.is_empty() {
        bytes.push(b'\n');
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_file_neither_panics_nor_tells_a_key(
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let mut bytes = BASE.as_bytes().to_vec();
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        let printed = printed(&bytes);
        prop_assert!(!tells_a_key(&printed), "{printed}");
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        printed(&bytes);
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]a-z\"'={}#,.\n\\\\ 0-9]{0,300}") {
        printed(text.as_bytes());
    }
}

#[test]
fn a_config_shows_no_key() {
    let bytes = Zeroizing::new(BASE.as_bytes().to_vec());
    let config = parse(Path::new("base.toml"), bytes, Purpose::Check).unwrap();
    assert!(!tells_a_key(&format!("{config:?}")));
    assert!(tells_a_key(BASE), "the test can fail");
}

/// The sample with its keys of default value switched on: "#" before a word, "##" stays.
fn switched_on(sample: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_alphabetic() || first == '[') => {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    sample.lines().map(line).collect()
}

#[test]
fn the_sample_is_clean_as_it_is_and_with_every_default_written_out() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let plain = load(&packaging.join("xipsec.toml"), Purpose::Run).unwrap();
    assert_eq!(plain.warnings, [] as [&str; 0]);
    assert_eq!(not_built(&plain), []);

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("paris-out.key"), "00".repeat(20) + "\n").unwrap();
    fs::write(folder.path().join("paris-in.key"), "11".repeat(20)).unwrap();
    let sample = fs::read_to_string(packaging.join("xipsec.toml")).unwrap();
    let file = folder.path().join("xipsec.toml");
    fs::write(&file, switched_on(&sample)).unwrap();
    let whole = load(&file, Purpose::Replay);
    // `mac` stands at one port only; everything else must be there and right.
    let told: Vec<String> = whole
        .unwrap_err()
        .iter()
        .map(|error| error.why.clone())
        .collect();
    assert_eq!(
        told,
        ["missing (replay wants a MAC address, like 02:00:00:00:00:01)"]
    );
    let whole = load(&file, Purpose::Run).unwrap();
    let mut settings = whole.dataplane.clone();
    assert_eq!(settings.cores.take(), Some(vec![2, 3]));
    assert!(settings.busy_poll.take().is_some() && settings.metrics.take().is_some());
    assert_eq!(
        settings, plain.dataplane,
        "a default of the sample is not the default"
    );
    assert_eq!((whole.sas.len(), whole.policies.len()), (2, 2));
    assert_eq!((whole.routes.len(), whole.neighbors.len()), (1, 1));
    let defaults = (&whole.sas[0], &whole.sas[1]);
    assert_eq!(defaults.0.lifetime, defaults.1.lifetime);
    assert_eq!(defaults.0.replay_window, defaults.1.replay_window);
    assert_eq!(defaults.0.follow_peer, defaults.1.follow_peer);
    assert_eq!(defaults.0.dscp, defaults.1.dscp);
    assert_eq!(defaults.0.hop_limit, defaults.1.hop_limit);
    assert_eq!(defaults.0.ecn, defaults.1.ecn);
    assert_eq!(whole.policies[0].tcp_mss, whole.policies[1].tcp_mss);
    assert_eq!(whole.policies[0].selector, whole.policies[1].selector);
}
