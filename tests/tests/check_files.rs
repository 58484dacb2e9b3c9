//! Goal: all mistakes of a file are told in one run, files that are no configuration are refused,
//! warnings refuse nothing, and no key material is ever shown. Method: a good file, spoilt.

use anyhow::{Context, Result, ensure};
use xipsec_tests::expect::{conclude, no_keys};
use xipsec_tests::mistakes::{GOOD, check, expected, further_policy, further_sa, spoil};

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
        let mut text = spoil(GOOD, "workers = 1", "*wokers = 1");
        text = spoil(&text, "spi = 0x1002", "*spi = 7");
        text = spoil(
            &text,
            "prefix = \"10.2.0.0/16\"",
            "*prefix = \"10.2.0.1/16\"",
        );
        text += &further_policy(&["*sa = [\"nowhere\"]", "*local = \"10.3.0.1/24\""]);
        text += &further_sa(&["*hop_limit = 256"]);
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
