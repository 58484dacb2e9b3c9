//! Goal: every mistake of the interface document is told with file, line and key. Method: a good
//! file, spoilt in one place; `*` marks the line that must be told, `^` a key told as missing.

use xipsec_tests::expect::conclude;
use xipsec_tests::mistakes::{further_sa, replaced, sa, tells};

/// Bytes for any key of 20; keys of other lengths are cut from it or written out.
const KEY: &str = "000102030405060708090a0b0c0d0e0f10111213";

const NO_CIPHER: &str = "encryption = \"null\"";
const SHA1: &str = "integrity = \"sha1_96\"";
const AH: &str = "protocol = \"ah\"";
const TRANSPORT: &str = "mode = \"transport\"";

//= test T02
//= test T85
//= test T153
#[test]
fn numbers_and_keys() {
    let short = format!("*encryption_key = \"{}\"", &KEY[..38]);
    let long = format!("*encryption_key = \"{KEY}00\"");
    let odd = format!("*encryption_key = \"{}\"", &KEY[..39]);
    let same = "*encryption_key = \"a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3\"";
    conclude(tells(&[
        sa("a key too short", &[&short]),
        sa("a key too long", &[&long]),
        sa("half a byte", &[&odd]),
        sa("a key that is not hex", &["*encryption_key = \"zz\""]),
        sa("a key and its file", &["*encryption_key_file = \"k\""]),
        sa("one counter-mode key twice", &[same]),
        sa("a reserved SPI", &["*spi = 255"]),
        sa("SPI 0", &["*spi = 0"]),
        sa(
            "one SPI, destination and protocol twice",
            &["*spi = 0x1001"],
        ),
        sa("numbers beyond 32 bits", &["*sequence = 4294967296"]),
        replaced(
            "ESN without replay",
            "replay_window = 64",
            "*replay_window = 0\n*esn = true",
        ),
        replaced("no state for AEAD keys", "workers = 1", "*state_dir = \"\""),
    ]));
}

//= test T71
//= test T148
#[test]
fn algorithms_that_do_not_go_together() {
    let key = format!("integrity_key = \"{KEY}\"");
    let md5 = format!("integrity_key = \"{}\"", &KEY[..32]);
    let no_key = "!encryption_key";
    let equal = "*encryption_key = \"000102030405060700010203040506078899aabbccddeeff\"";
    let triple_des = further_sa(&["*encryption = \"3des\"", SHA1, &key, equal]);
    let triple_des = format!("allow_legacy = true\n\n{triple_des}");
    conclude(tells(&[
        sa(
            "null without integrity",
            &["*encryption = \"null\"", no_key, "^integrity"],
        ),
        sa("integrity with an AEAD", &["*integrity = \"sha1_96\""]),
        sa(
            "encryption on AH",
            &[AH, "*encryption = \"null\"", no_key, SHA1, &key],
        ),
        sa(
            "legacy",
            &[NO_CIPHER, no_key, "*integrity = \"md5_96\"", &md5],
        ),
        ("a 3des key with equal parts", "workers = 1\n", triple_des),
    ]));
}

//= test T159
#[test]
fn addresses_modes_and_encapsulation() {
    let key = format!("integrity_key = \"{KEY}\"");
    let ports = "udp_encapsulation = { source_port = 4500, destination_port = 4500 }";
    let ports = format!("*{ports}");
    let ike = "udp_encapsulation = { source_port = 4500, destination_port = 500 }";
    let ike = format!("{ike} #! destination_port");
    let on_ah = [AH, "!encryption", "!encryption_key", SHA1, &key, &ports];
    conclude(tells(&[
        sa("encapsulation on AH", &on_ah),
        sa("IKE's port", &[&ike]),
        sa(
            "padding in transport mode",
            &[TRANSPORT, "*tfc_pad_to = 100"],
        ),
        sa(
            "a transport SA for a prefix",
            &[TRANSPORT, "*source = \"192.0.2.0/24\""],
        ),
        sa(
            "two families",
            &["source = \"192.0.2.1\"", "*destination = \"2001:db8::2\""],
        ),
    ]));
}
