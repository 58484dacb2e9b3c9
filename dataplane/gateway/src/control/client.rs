//! The client: one call over a blocking stream.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::control::frame::{ANSWER, Decoder, TooLong, encode};
use crate::control::protocol::{Call, Method, Reply};

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no gateway answers on {path}: {source}")]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the gateway did not answer: {0}")]
    Broken(#[from] std::io::Error),
    /// The answer is not ours.
    #[error("the answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The answer has no end.
    #[error("the answer cannot be read: {0}")]
    TooLong(#[from] TooLong),
    /// The gateway refused, with its reason.
    #[error("refused: {0}")]
    Refused(String),
}

/// Calls a method of the gateway behind `socket`.
///
/// # Errors
/// [`ClientError`].
pub fn call(socket: &Path, method: Method, parameters: Value) -> Result<Value, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| ClientError::Connect {
        path: socket.display().to_string(),
        source,
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let call = Call {
        method: method.full_name(),
        parameters,
    };
    stream.write_all(&encode(&call)?)?;
    let mut decoder = Decoder::new(ANSWER);
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        decoder.push(&bytes[..count])?;
        if let Some(message) = decoder.next_message() {
            let reply: Reply = serde_json::from_slice(&message)?;
            return match reply.error {
                Some(error) => {
                    let why = reply.parameters.get("why").and_then(Value::as_str);
                    Err(ClientError::Refused(why.unwrap_or(&error).to_owned()))
                }
                None => Ok(reply.parameters),
            };
        }
    }
}
