//! The server: at most 32 clients and 8 of one user, each bounded in message size and in time.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::control::clients::{Clients, Place, User};
use crate::control::frame::{Decoder, REQUEST, encode};
use crate::control::protocol::{Call, INTERFACE, Method, Reply};

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For the whole of a request that it began, and to read its answer.
    request: Duration,
    /// Between requests: as long as tools that ask again and again pause, and some more.
    idle: Duration,
}

const PATIENCE: Patience = Patience {
    request: Duration::from_secs(5),
    idle: Duration::from_secs(60),
};

/// Why a request is not answered with a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The error's name behind the interface's.
    pub name: &'static str,
    /// One line for people; empty where the name says it all.
    pub why: String,
}

impl Refused {
    /// A refusal with its reason.
    #[must_use]
    pub fn new(name: &'static str, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { name, why }
    }
}

/// Whoever answers.
pub trait Answers {
    /// The result of a method.
    ///
    /// # Errors
    /// [`Refused`].
    fn answer(&self, method: Method, parameters: &Value) -> Result<Value, Refused>;
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
        let clients = Clients::new();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors: give the others time to end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(user) = stream.peer_cred().map(|peer| User(peer.uid())) else {
                continue;
            };
            let Some(place) = clients.admit(user) else {
                continue;
            };
            let answers = Rc::clone(&answers);
            let at = place.number();
            let task = tokio::task::spawn_local(async move {
                serve_client(stream, &*answers, &place, PATIENCE).await;
            });
            clients.remember(at, task.abort_handle());
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap_or_default();
    }
}

async fn serve_client(
    mut stream: UnixStream,
    answers: &dyn Answers,
    place: &Place,
    patience: Patience,
) {
    let mut decoder = Decoder::new(REQUEST);
    let mut bytes = [0; 4096];
    let mut until = Instant::now() + patience.idle;
    loop {
        let Ok(Ok(count @ 1..)) = timeout_at(until, stream.read(&mut bytes)).await else {
            return;
        };
        if decoder.is_empty() {
            // The request begins: the rest of it must come in time, however many reads it takes.
            until = Instant::now() + patience.request;
        }
        if decoder.push(&bytes[..count]).is_err() {
            return;
        }
        while let Some(message) = decoder.next_message() {
            let Ok(reply) = encode(&reply(&message, answers, place.user())) else {
                return;
            };
            match timeout(patience.request, stream.write_all(&reply)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
            place.touch();
            let next = if decoder.is_empty() {
                patience.idle
            } else {
                patience.request
            };
            until = Instant::now() + next;
        }
    }
}

/// The answer to one message, whatever it holds.
#[must_use]
pub fn reply(message: &[u8], answers: &dyn Answers, user: User) -> Reply {
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
    let Some(method) = Method::from_full_name(&call.method) else {
        return failed("org.varlink.service.MethodNotFound");
    };
    if method.changes() && !user.may_change() {
        let why = "only root and the gateway's own user may change it";
        return refused(&Refused::new("PermissionDenied", why));
    }
    match answers.answer(method, &call.parameters) {
        Ok(parameters) => Reply {
            parameters,
            error: None,
        },
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refused) -> Reply {
    let parameters = if refusal.why.is_empty() {
        Value::Null
    } else {
        json!({ "why": refusal.why })
    };
    Reply {
        parameters,
        error: Some(format!("{INTERFACE}.{}", refusal.name)),
    }
}

fn failed(name: &str) -> Reply {
    Reply {
        parameters: Value::Null,
        error: Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests;
