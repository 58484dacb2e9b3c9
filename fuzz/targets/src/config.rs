//! Configuration files: no panic, every message one line, no key in any message, and what is
//! accepted can be put together.

use std::path::Path;

use ipsec::tables::Unmatched;
use ipsec::time::Time;
use xipsec::assembly;
use xipsec::config::{Purpose, not_built, parse};

/// Hex digits in a row that might be a piece of a key.
const PIECE: usize = 16;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let sample = std::fs::read(root.join("packaging/xipsec.toml")).unwrap_or_default();
    let base = root.join("dataplane/gateway/src/config/tests/base.toml");
    let base = std::fs::read_to_string(base).unwrap_or_default();
    let more = [
        "[dataplane]\nrings = { rx = 1 }\nicmp = { accept_unprotected = [3, \"too_big\"] }\n",
        "[[sa]]\nname = \"x\"\nmode = \"transport\"\nlifetime = { hard_seconds = -1 }\n",
        "[[policy]]\nlocal = [\"10.0.0.0-10.0.0.9\", \"::/0\"]\nlocal_port = [\"9-1\", 7]\n",
        "[[port]]\nname = \"\u{7}\"\naddress = [\"1.2.3.4\"]\n[[port]]\nname = 7\n",
        "",
        "[[sa]]\nname = \"00112233445566778899aabbccddeeff\"\n",
    ];
    let parts = base.split("\n\n").map(|table| table.as_bytes().to_vec());
    let all = [sample, base.clone().into_bytes()].into_iter().chain(parts);
    all.chain(more.map(|it| it.as_bytes().to_vec())).collect()
}

pub(crate) fn run(bytes: &[u8]) {
    // Key files would be looked for on the machine that fuzzes.
    if bytes.windows(9).any(|window| window == b"_key_file") {
        return;
    }
    for purpose in [Purpose::Run, Purpose::Check, Purpose::Replay] {
        match parse(Path::new("fuzz.toml"), bytes.to_vec().into(), purpose) {
            Ok(mut config) => {
                for text in &config.warnings {
                    one_line(text);
                }
                for error in not_built(&config) {
                    message(&error.to_string(), bytes);
                }
                if purpose == Purpose::Replay && not_built(&config).is_empty() {
                    assembled(&mut config);
                }
            }
            Err(errors) => {
                assert!(!errors.is_empty(), "refused without a reason");
                errors
                    .iter()
                    .for_each(|error| message(&error.to_string(), bytes));
            }
        }
    }
}

fn one_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// One line that tells its file and shows no long run of hex digits that the file has.
fn message(text: &str, bytes: &[u8]) {
    one_line(text);
    assert!(text.starts_with("fuzz.toml"), "{text:?}");
    // The largest number that a key of the file takes is what many messages say.
    let text = text.replace(&i64::MAX.to_string(), "").to_ascii_lowercase();
    let runs = text.split(|character: char| !character.is_ascii_hexdigit());
    for run in runs.filter(|run| run.len() >= PIECE) {
        let bytes = bytes.to_ascii_lowercase();
        let told = bytes
            .windows(run.len())
            .any(|window| window == run.as_bytes());
        assert!(!told, "a key may show in {text:?}");
    }
}

/// What was accepted is free of contradictions.
fn assembled(config: &mut xipsec::config::Config) {
    let parameters = std::mem::take(&mut config.sas);
    let starts = xipsec::state::unreserved(&parameters);
    let sas = assembly::sas(parameters, &config.policies, &starts, Time(0)).unwrap();
    let own = config.ports.iter().flat_map(|port| &port.addresses);
    let local = own.map(|address| address.address);
    assembly::tables(&sas, &config.policies, local, Unmatched::Discard).unwrap();
    let _routes = assembly::static_fib(config);
    let _neighbors = assembly::static_neighbors(config);
}
