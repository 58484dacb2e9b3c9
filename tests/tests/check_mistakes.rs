//! Goal: every mistake of the interface document is told with file, line and key, all of a file in
//! one run, and no key material is ever shown. Method: a good file, spoilt in one place; the line
//! that must be named carries a comment `#! KEY`.

use anyhow::{Context, Result, ensure};
use xipsec_tests::expect::{conclude, no_keys};
use xipsec_tests::mistakes::{GOOD, check, expected, further_policy, further_sa, spoil};

/// What is wrong, the text to replace (empty: append), the text to put.
type Case = (&'static str, &'static str, String);

fn replaced(what: &'static str, find: &'static str, put: &str) -> Case {
    (what, find, put.to_owned())
}

fn sa(what: &'static str, lines: &[&str]) -> Case {
    (what, "", further_sa(lines))
}

fn policy(what: &'static str, lines: &[&str]) -> Case {
    (what, "", further_policy(lines))
}

/// Every case must yield exactly one error, and it must be one that the file marks.
fn tells(cases: &[Case]) -> Result<()> {
    ensure!(check(GOOD.as_bytes())?.0 == 0, "the good file is refused");
    let mut failures = Vec::new();
    for (what, find, put) in cases {
        let text = spoil(GOOD, find, put);
        let (status, errors, _) = check(text.as_bytes()).with_context(|| (*what).to_owned())?;
        let marked = expected(&text);
        let right = |line: usize, key: &str| errors[0].line == line && errors[0].names(key);
        let told = errors.len() == 1 && marked.iter().any(|(line, key)| right(*line, key));
        if status != 1 || !told || !errors[0].advises() {
            failures.push(format!(
                "{what}: status {status}, {errors:?}, expected {marked:?}"
            ));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn keys_and_types() {
    conclude(tells(&[
        replaced(
            "an unknown key",
            "workers = 1",
            "workers = 1\nwokers = 2 #! wokers",
        ),
        sa(
            "an unknown key of an SA",
            &["encryptoin = \"null\" #! encryptoin"],
        ),
        replaced(
            "a wrong type",
            "workers = 1",
            "workers = \"many\" #! workers",
        ),
        replaced("a fraction", "workers = 1", "batch = 1.5 #! batch"),
        replaced(
            "a wrong choice",
            "side = \"protected\"",
            "side = \"inside\" #! side",
        ),
        replaced(
            "a MAC address",
            "\"02:00:00:00:00:02\"",
            "\"02:00:00:00:00\" #! mac",
        ),
        replaced(
            "a port's MTU",
            "mac = \"02:00:00:00:00:02\"",
            "mtu = 1279 #! mtu",
        ),
        replaced(
            "a number above 2^63-1",
            "workers = 1",
            "batch = 9223372036854775808 #! batch",
        ),
        sa(
            "a hop limit beyond a byte",
            &["hop_limit = 256 #! hop_limit"],
        ),
        sa("DSCP beyond six bits", &["dscp = 64 #! dscp"]),
        sa(
            "a window too small",
            &["replay_window = 31 #! replay_window"],
        ),
        sa(
            "a window too large",
            &["replay_window = 1048577 #! replay_window"],
        ),
        sa("an SPI beyond 32 bits", &["spi = 0x100000000 #! spi"]),
        sa(
            "an unknown cipher",
            &["encryption = \"aes127\" #! encryption"],
        ),
        sa("an address", &["source = \"192.0.2.256\" #! source"]),
        sa("a name", &["name = \"not good\" #! name"]),
        sa("a name twice", &["name = \"away\" #! name"]),
        policy(
            "a priority that is no number",
            &["priority = \"high\" #! priority"],
        ),
        replaced(
            "path MTU",
            "workers = 1",
            "path_mtu = { minimum = 67 } #! minimum",
        ),
        replaced(
            "path MTU's age",
            "workers = 1",
            "path_mtu = { age_seconds = 299 } #! age_seconds",
        ),
    ]));
}

#[test]
fn missing_keys_are_told_at_their_table() {
    let missing = |key: &'static str| {
        let (away, mark) = (format!("!{key}"), format!("#! {key}"));
        ("a missing key", "", further_sa(&[&away, &mark]))
    };
    let keys = [
        "name",
        "direction",
        "protocol",
        "mode",
        "spi",
        "source",
        "destination",
    ];
    let mut cases: Vec<Case> = keys.into_iter().map(missing).collect();
    cases.push(missing("encryption"));
    cases.push(missing("encryption_key"));
    for key in [
        "name",
        "direction",
        "action",
        "local",
        "remote",
        "priority",
        "sa",
    ] {
        let (away, mark) = (format!("!{key}"), format!("#! {key}"));
        cases.push((
            "a policy's missing key",
            "",
            further_policy(&[&away, &mark]),
        ));
    }
    cases.push(replaced(
        "a route's",
        "[[route]]\nprefix = \"10.2.0.0/16\"",
        "[[route]] #! prefix",
    ));
    cases.push((
        "a neighbour's",
        "",
        "[[neighbor]] #! mac\nport = \"wan0\"\naddress = \"192.0.2.9\"".into(),
    ));
    conclude(tells(&cases));
}

#[test]
fn security_associations() {
    let key20 = "000102030405060708090a0b0c0d0e0f10111213";
    let sha1 = format!("integrity_key = \"{key20}\"");
    let short = format!("encryption_key = \"{}\" #! encryption_key", &key20[..38]);
    let equal = "000102030405060700010203040506078899aabbccddeeff\" #! encryption_key";
    let equal = format!("encryption_key = \"{equal}");
    let lines = [
        "encryption = \"3des\" #! encryption",
        "integrity = \"sha1_96\"",
        &sha1,
        &equal,
    ];
    let triple_des = format!("allow_legacy = true\n\n{}", further_sa(&lines));
    let same = "encryption_key = \"a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3\" #! encryption_key";
    conclude(tells(&[
        sa("a key too short", &[&short]),
        sa(
            "a key that is not hex",
            &["encryption_key = \"zz\" #! encryption_key"],
        ),
        sa("a reserved SPI", &["spi = 255 #! spi"]),
        sa("SPI 0", &["spi = 0 #! spi"]),
        sa(
            "one SPI, destination and protocol twice",
            &["spi = 0x1001 #! spi"],
        ),
        sa("one counter-mode key twice", &[same]),
        sa(
            "encryption without integrity",
            &[
                "encryption = \"null\" #! integrity",
                "!encryption_key",
                "# #! integrity",
            ],
        ),
        sa(
            "integrity with an AEAD",
            &["integrity = \"sha1_96\" #! integrity"],
        ),
        sa(
            "encryption on AH",
            &[
                "protocol = \"ah\"",
                "encryption = \"null\" #! encryption",
                "!encryption_key",
                "integrity = \"sha1_96\"",
                &sha1,
            ],
        ),
        sa(
            "encapsulation on AH",
            &[
                "protocol = \"ah\"",
                "!encryption",
                "!encryption_key",
                "integrity = \"sha1_96\"",
                &sha1,
                "udp_encapsulation = { source_port = 4500, destination_port = 4500 } #! udp_encapsulation",
            ],
        ),
        sa(
            "IKE's port",
            &[
                "udp_encapsulation = { source_port = 4500, destination_port = 500 } #! destination_port",
            ],
        ),
        sa(
            "padding in transport mode",
            &["mode = \"transport\"", "tfc_pad_to = 100 #! tfc_pad_to"],
        ),
        sa(
            "a legacy algorithm",
            &[
                "encryption = \"null\"",
                "!encryption_key",
                "integrity = \"md5_96\" #! integrity",
                "integrity_key = \"000102030405060708090a0b0c0d0e0f\"",
            ],
        ),
        sa(
            "a transport SA for a prefix",
            &[
                "mode = \"transport\"",
                "source = \"192.0.2.0/24\" #! source",
            ],
        ),
        sa(
            "two families",
            &[
                "source = \"192.0.2.1\"",
                "destination = \"2001:db8::2\" #! destination",
            ],
        ),
        sa(
            "a key and its file",
            &["encryption_key_file = \"k\" #! encryption_key_file"],
        ),
        sa(
            "numbers beyond 32 bits",
            &["sequence = 4294967296 #! sequence"],
        ),
        replaced(
            "ESN without anti-replay",
            "replay_window = 64",
            "replay_window = 0 #! replay_window\nesn = true #! esn",
        ),
        replaced(
            "no state for counter-mode keys",
            "workers = 1",
            "state_dir = \"\" #! state_dir",
        ),
        ("a 3des key with equal parts", "workers = 1\n", triple_des),
    ]));
}

#[test]
fn policies_routes_and_neighbours() {
    conclude(tells(&[
        policy("an SA that does not exist", &["sa = [\"nowhere\"] #! sa"]),
        policy(
            "an SA that points the other way",
            &["sa = [\"back\"] #! sa"],
        ),
        policy("an empty bundle", &["sa = [] #! sa"]),
        policy(
            "an SA with bypass",
            &["action = \"bypass\"", "sa = [\"away\"] #! sa"],
        ),
        policy(
            "an SA with discard",
            &["action = \"discard\"", "sa = [\"away\"] #! sa"],
        ),
        policy(
            "ports without a protocol",
            &["local_port = 443 #! local_port"],
        ),
        policy(
            "ports of ICMP",
            &["protocol = \"icmp\"", "remote_port = 1 #! remote_port"],
        ),
        policy("host bits", &["local = \"10.3.0.1/24\" #! local"]),
        policy(
            "mixed families",
            &[
                "local = \"10.3.0.0/24\"",
                "remote = \"fd00::/64\" #! remote",
            ],
        ),
        policy(
            "mixed families in a list",
            &["local = [\"10.3.0.0/24\", \"fd00::/64\"] #! local"],
        ),
        policy(
            "a reversed range",
            &["local = \"10.3.0.9-10.3.0.1\" #! local"],
        ),
        policy(
            "a reversed port range",
            &["protocol = \"udp\"", "local_port = \"9-1\" #! local_port"],
        ),
        policy(
            "an ICMP type of UDP",
            &["protocol = \"udp\"", "icmp_type = 8 #! icmp_type"],
        ),
        replaced(
            "a route's unknown port",
            "port = \"wan0\"\nvia",
            "port = \"wan9\" #! port\nvia",
        ),
        replaced(
            "a neighbour's unknown port",
            "port = \"wan0\"\naddress",
            "port = \"lan9\" #! port\naddress",
        ),
        replaced(
            "host bits of a route",
            "\"10.2.0.0/16\"",
            "\"10.2.0.1/16\" #! prefix",
        ),
    ]));
}

#[test]
fn files_that_are_no_configuration() {
    let body = || -> Result<()> {
        let (status, errors, _) = check(b"[dataplane\nworkers = 1\n")?;
        ensure!(
            status == 1 && errors.len() == 1 && errors[0].line == 1,
            "{errors:?}"
        );
        let (status, errors, _) = check(b"[dataplane]\n# \xff\xfe\n")?;
        ensure!(status == 1 && errors.len() == 1, "not UTF-8: {errors:?}");
        let (status, errors, _) = check(b"")?;
        ensure!(
            status == 1 && !errors.is_empty(),
            "a file without ports: {errors:?}"
        );
        let one_side = GOOD.replace("\"protected\"", "\"unprotected\"");
        let (status, errors, _) = check(one_side.as_bytes())?;
        ensure!(
            status == 1 && !errors.is_empty(),
            "no protected port: {errors:?}"
        );
        let absent = xipsec_tests::mistakes::run_check("no/such/file.toml".as_ref())?;
        let said = String::from_utf8(absent.stderr)?;
        ensure!(
            absent.status.code() == Some(1) && said.contains("no/such/file.toml"),
            "{said}"
        );
        ensure!(
            said.lines().count() == 1 && said.starts_with("xipsec: "),
            "{said}"
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn all_mistakes_of_a_file_in_one_run() {
    let body = || -> Result<()> {
        let mut text = spoil(GOOD, "workers = 1", "wokers = 1 #! wokers");
        text = spoil(&text, "spi = 0x1002", "spi = 7 #! spi");
        text = spoil(&text, "\"10.2.0.0/16\"", "\"10.2.0.1/16\" #! prefix");
        text += &further_policy(&[
            "sa = [\"nowhere\"] #! sa",
            "local = \"10.3.0.1/24\" #! local",
        ]);
        text += &further_sa(&["hop_limit = 256 #! hop_limit"]);
        let (status, errors, _) = check(text.as_bytes())?;
        ensure!(status == 1);
        let marked = expected(&text);
        for (line, key) in &marked {
            let told = errors
                .iter()
                .any(|error| error.line == *line && error.names(key));
            ensure!(told, "{line}: {key} is not told: {errors:?}");
        }
        ensure!(errors.len() == marked.len(), "{errors:?}");
        ensure!(
            errors.is_sorted_by_key(|error| error.line),
            "not in the file's order"
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn keys_never_appear() {
    let body = || -> Result<()> {
        let keys = [
            "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3",
            "c0c1c2c3c4c5c6c7",
        ];
        let keys = keys.map(str::to_owned);
        for (find, put) in [
            ("encryption_key = \"a0", "encryption_key = \"00a0"),
            ("encryption_key = \"a0", "encryption_kye = \"a0"),
            (
                "encryption = \"aes128gcm16\"",
                "encryption = \"aes256gcm16\"",
            ),
            ("integrity_key = \"c0", "integrity_key = [\"c0"),
            (
                "name = \"away\"",
                "name = \"a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3\"",
            ),
            (
                "name = \"away\"",
                "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3 = 1",
            ),
            (
                "mac = \"02:00:00:00:00:03\"",
                "mac = \"a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3\"",
            ),
        ] {
            let text = spoil(GOOD, find, put);
            let (status, errors, warnings) = check(text.as_bytes())?;
            ensure!(status == 1, "{put} is accepted");
            no_keys(&format!("{errors:?}{warnings:?}"), &keys).with_context(|| put.to_owned())?;
        }
        Ok(())
    };
    conclude(body());
}

#[test]
fn warnings_do_not_refuse() {
    let body = || -> Result<()> {
        let (status, errors, warnings) = check(GOOD.as_bytes())?;
        ensure!(status == 0 && errors.is_empty(), "{errors:?}");
        ensure!(
            warnings.len() == 1,
            "counter-mode keys by hand, once a file: {warnings:?}"
        );
        for (find, put, word) in [
            ("", further_sa(&[]), "further"),
            (
                "replay_window = 64",
                "replay_window = 0".to_owned(),
                "replay",
            ),
        ] {
            let (status, errors, warnings) = check(spoil(GOOD, find, &put).as_bytes())?;
            ensure!(status == 0 && errors.is_empty(), "{errors:?}");
            let told = warnings.iter().any(|warning| warning.contains(word));
            ensure!(warnings.len() == 2 || find.is_empty(), "{warnings:?}");
            ensure!(told, "{word}: {warnings:?}");
        }
        Ok(())
    };
    conclude(body());
}
