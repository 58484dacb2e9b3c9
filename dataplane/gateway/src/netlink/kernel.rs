//! Requests to the kernel's route netlink.

use std::io;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;

/// Dumps that the kernel interrupts because its tables change meanwhile are repeated this often;
/// the last one is taken as it is, notifications mend it.
const DUMP_ATTEMPTS: usize = 5;

/// Why the kernel's tables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket.
    #[error("netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("{what}: {why}")]
    Refused {
        /// The request.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        why: io::Error,
    },
    /// The connection's task is gone: its runtime has ended.
    #[error("{0}: the netlink connection is closed")]
    Closed(&'static str),
}

impl NetlinkError {
    /// Whether the kernel refused with this error number.
    pub(super) fn is(&self, number: i32) -> bool {
        matches!(self, Self::Refused { why, .. } if why.raw_os_error() == Some(number))
    }
}

/// A connection for requests, shared by clones.
#[derive(Clone, Debug)]
pub struct Kernel {
    handle: rtnetlink::Handle,
}

impl Kernel {
    /// Connects in the network namespace of the calling thread; the connection lives on the
    /// current runtime.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Sends one request and waits until the kernel has carried it out.
    pub(super) async fn execute(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut handle = self.handle.clone();
        let mut answers = handle
            .request(request)
            .map_err(|_| NetlinkError::Closed(what))?;
        while let Some(answer) = answers.next().await {
            refusal(what, &answer)?;
        }
        Ok(())
    }

    /// Asks for a whole table.
    pub(super) async fn dump(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut entries = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            let mut request = NetlinkMessage::from(message.clone());
            request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let mut handle = self.handle.clone();
            let mut answers = handle
                .request(request)
                .map_err(|_| NetlinkError::Closed(what))?;
            let mut interrupted = false;
            entries.clear();
            while let Some(answer) = answers.next().await {
                refusal(what, &answer)?;
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                if let NetlinkPayload::InnerMessage(entry) = answer.payload {
                    entries.push(entry);
                }
            }
            if !interrupted {
                break;
            }
        }
        Ok(entries)
    }
}

/// The error in an answer, if it is one.
fn refusal(
    what: &'static str,
    answer: &NetlinkMessage<RouteNetlinkMessage>,
) -> Result<(), NetlinkError> {
    match &answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(NetlinkError::Refused {
            what,
            why: error.to_io(),
        }),
        _ => Ok(()),
    }
}
