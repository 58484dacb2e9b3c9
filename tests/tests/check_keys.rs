//! Goal: every mistake of the interface document is told with file, line and key. Method: a good
//! file, spoilt in one place; `*` marks the line that must be told, `^` a key told as missing.

use xipsec_tests::expect::conclude;
use xipsec_tests::mistakes::{Case, further_policy, further_sa, policy, replaced, sa, tells};

#[test]
fn unknown_keys_and_wrong_types() {
    conclude(tells(&[
        replaced("an unknown key", "workers = 1", "workers = 1\n*wokers = 2"),
        sa("an unknown key of an SA", &["*encryptoin = \"null\""]),
        policy("an unknown key of a policy", &["*priorty = 1"]),
        replaced("a wrong type", "workers = 1", "*workers = \"many\""),
        replaced("a fraction", "workers = 1", "*batch = 1.5"),
        replaced(
            "a wrong choice",
            "side = \"protected\"",
            "*side = \"inside\"",
        ),
        replaced(
            "half a MAC address",
            "mac = \"02:00:00:00:00:02\"",
            "*mac = \"02:00\"",
        ),
        policy("a priority that is no number", &["*priority = \"high\""]),
        sa("an unknown cipher", &["*encryption = \"aes127\""]),
        sa("an address", &["*source = \"192.0.2.256\""]),
        sa("a name", &["*name = \"not good\""]),
        sa("a name twice", &["*name = \"away\""]),
    ]));
}

#[test]
fn numbers_out_of_range() {
    conclude(tells(&[
        replaced(
            "a number above 2^63-1",
            "workers = 1",
            "*batch = 9223372036854775808",
        ),
        replaced("a port's MTU", "mac = \"02:00:00:00:00:02\"", "*mtu = 1279"),
        replaced(
            "path MTU",
            "workers = 1",
            "path_mtu = { minimum = 67 } #! minimum",
        ),
        replaced(
            "its age",
            "workers = 1",
            "path_mtu = { age_seconds = 299 } #! age_seconds",
        ),
        sa("a hop limit beyond a byte", &["*hop_limit = 256"]),
        sa("DSCP beyond six bits", &["*dscp = 64"]),
        sa("a window too small", &["*replay_window = 31"]),
        sa("a window too large", &["*replay_window = 1048577"]),
        sa("an SPI beyond 32 bits", &["*spi = 0x100000000"]),
        sa("a negative number", &["*keepalive_seconds = -1"]),
    ]));
}

#[test]
fn missing_keys_are_told_at_their_table() {
    let keys = [
        "name",
        "direction",
        "protocol",
        "mode",
        "spi",
        "source",
        "destination",
        "encryption",
        "encryption_key",
    ];
    let missing = |key: &str| format!("^{key}");
    let mut cases: Vec<Case> = keys
        .map(|key| ("an SA's missing key", "", further_sa(&[&missing(key)])))
        .into();
    let keys = [
        "name",
        "direction",
        "action",
        "local",
        "remote",
        "priority",
        "sa",
    ];
    let policies = keys.map(|key| ("a policy's", "", further_policy(&[&missing(key)])));
    cases.extend(policies);
    let route = "[[route]]\nprefix = \"10.2.0.0/16\"";
    cases.push(replaced("a route's", route, "[[route]] #! prefix"));
    let neighbor = "[[neighbor]] #! mac\nport = \"wan0\"\naddress = \"192.0.2.9\"";
    cases.push(replaced("a neighbour's", "", neighbor));
    conclude(tells(&cases));
}
