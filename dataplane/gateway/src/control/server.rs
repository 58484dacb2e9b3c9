//! The server: at most 32 clients, each bounded in message size and in time.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::control::frame::{Decoder, REQUEST, encode};
use crate::control::protocol::{Call, INTERFACE, Method, Reply};

/// Clients at once: one operator's tools, not a load.
const CLIENTS: usize = 32;

/// How long a client may take to send a request that it began, or to read its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whoever answers.
pub trait Answers {
    /// The result of a method, or the error's name behind the interface's.
    ///
    /// # Errors
    /// The name of the error.
    fn answer(&self, method: Method) -> Result<Value, &'static str>;
}

/// A bound socket; its file is removed on drop.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the control socket. A socket file that a crash left is taken over; one that answers
    /// is not.
    ///
    /// # Errors
    /// When another gateway answers there, or the file cannot be made.
    pub fn bind(path: &Path, group: Option<u32>) -> std::io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if path.exists() {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::AddrInUse,
                    "another gateway answers on it",
                ));
            }
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::AlreadyExists,
                    "a file is there that is no socket",
                ));
            }
            std::fs::remove_file(path)?;
        }
        // Bound under another name and moved into place, so that nobody connects before the mode
        // is right.
        let hidden = path.with_extension(format!("new.{}", std::process::id()));
        // A crash may have left one under the same process number.
        std::fs::remove_file(&hidden).unwrap_or_default();
        let listener = UnixListener::bind(&hidden)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode))?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&hidden, None, Some(group))?;
        }
        std::fs::rename(&hidden, path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves clients for ever; drop the future to stop. Runs on a `LocalSet`.
    pub async fn serve(&self, answers: Rc<dyn Answers>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors: give the others time to end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let answers = Rc::clone(&answers);
            tokio::task::spawn_local(async move {
                serve_client(stream, &*answers).await;
                drop(place);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap_or_default();
    }
}

async fn serve_client(mut stream: UnixStream, answers: &dyn Answers) {
    let mut decoder = Decoder::new(REQUEST);
    let mut bytes = [0; 4096];
    let mut begun = false;
    loop {
        let read = stream.read(&mut bytes);
        // Between requests a client may think as long as it likes.
        let count = if begun {
            match timeout(PATIENCE, read).await {
                Ok(count) => count,
                Err(_) => return,
            }
        } else {
            read.await
        };
        let Ok(count @ 1..) = count else { return };
        if decoder.push(&bytes[..count]).is_err() {
            return;
        }
        begun = true;
        while let Some(message) = decoder.next_message() {
            begun = false;
            let Ok(reply) = encode(&reply(&message, answers)) else {
                return;
            };
            match timeout(PATIENCE, stream.write_all(&reply)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }
}

/// The answer to one message, whatever it holds.
#[must_use]
pub fn reply(message: &[u8], answers: &dyn Answers) -> Reply {
    let Ok(call) = serde_json::from_slice::<Call>(message) else {
        return failed("org.varlink.service.InvalidParameter");
    };
    if call.method == "org.varlink.service.GetInfo" {
        return Reply {
            parameters: json!({
                "vendor": "xipsec",
                "product": "xipsec",
                "version": env!("CARGO_PKG_VERSION"),
                "url": "",
                "interfaces": ["org.varlink.service", INTERFACE],
            }),
            error: None,
        };
    }
    match Method::from_full_name(&call.method) {
        Some(method) => match answers.answer(method) {
            Ok(parameters) => Reply {
                parameters,
                error: None,
            },
            Err(error) => failed(&format!("{INTERFACE}.{error}")),
        },
        None => failed("org.varlink.service.MethodNotFound"),
    }
}

fn failed(name: &str) -> Reply {
    Reply {
        parameters: Value::Null,
        error: Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Answers for Echo {
        fn answer(&self, method: Method) -> Result<Value, &'static str> {
            match method {
                Method::Stats => Err("NotReady"),
                other => Ok(json!({ "method": other.name() })),
            }
        }
    }

    fn error(message: &[u8]) -> Option<String> {
        reply(message, &Echo).error
    }

    #[test]
    fn every_message_gets_an_answer() {
        let ok = reply(br#"{"method":"io.xipsec.Gateway.Status"}"#, &Echo);
        assert_eq!(ok.parameters["method"], "Status");
        assert_eq!(ok.error, None);
        let stats = error(br#"{"method":"io.xipsec.Gateway.Stats","parameters":{}}"#);
        assert_eq!(stats.as_deref(), Some("io.xipsec.Gateway.NotReady"));
        let unknown = error(br#"{"method":"io.xipsec.Gateway.Explode"}"#);
        assert_eq!(
            unknown.as_deref(),
            Some("org.varlink.service.MethodNotFound")
        );
        for nonsense in [
            &b""[..],
            b"{",
            b"[]",
            b"{\"method\":7}",
            b"\xff\xfe",
            b"null",
        ] {
            let invalid = error(nonsense);
            assert_eq!(
                invalid.as_deref(),
                Some("org.varlink.service.InvalidParameter")
            );
        }
        let info = reply(br#"{"method":"org.varlink.service.GetInfo"}"#, &Echo);
        assert_eq!(info.parameters["product"], "xipsec");
    }
}
