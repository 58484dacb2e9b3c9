//! `sa dummy`: what changes a running gateway. Success is quiet.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::arguments::Target;
use crate::cli::target;
use crate::control::protocol::{Dummies, Method};

/// `xipsec sa dummy`.
#[must_use]
pub fn dummies(target: &Target, name: String, count: u32) -> ExitCode {
    let parameters = json!(Dummies { sa: name, count });
    match target::call(target, Method::SendDummies, parameters) {
        Ok(_) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}
