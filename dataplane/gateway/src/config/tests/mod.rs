//! Every mistake with its exact words; no input panics; no key is ever told.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

mod mistakes;

mod properties;

use std::path::Path;

use zeroize::Zeroizing;

use crate::config::{Config, ConfigError, Purpose, parse};

/// A whole file without a mistake.
const BASE: &str = include_str!("base.toml");

fn read(text: &str, purpose: Purpose) -> Result<Config, Vec<ConfigError>> {
    let bytes = Zeroizing::new(text.as_bytes().to_vec());
    parse(Path::new("base.toml"), bytes, purpose)
}

/// What is said of a text, one line each.
fn told(text: &str, purpose: Purpose) -> Vec<String> {
    match read(text, purpose) {
        Ok(config) => config
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}"))
            .collect(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}
