//! Finds the running gateway and calls it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::arguments::Target;
use crate::cli::{FAILED, check, complain};
use crate::control::client::{self, ClientError};
use crate::control::protocol::Method;

/// Where a gateway listens when nothing says otherwise.
const SOCKET: &str = "/run/xipsec/control.sock";

/// What the gateway answers; a failure has been told.
///
/// # Errors
/// The exit status.
pub(super) fn call(target: &Target, method: Method, parameters: Value) -> Result<Value, ExitCode> {
    let socket = socket(target)?;
    client::call(&socket, method, parameters).map_err(|error| {
        match error {
            ClientError::Refused(why) => complain(&why),
            error => complain(&format_args!(
                "{error} (is `xipsec run` up, and may you read its socket?)"
            )),
        }
        ExitCode::from(FAILED)
    })
}

fn socket(target: &Target) -> Result<PathBuf, ExitCode> {
    if let Some(socket) = &target.socket {
        return Ok(socket.clone());
    }
    let Some(file) = &target.config else {
        return Ok(PathBuf::from(SOCKET));
    };
    check::load(file).map(|config| config.dataplane.control_socket)
}
