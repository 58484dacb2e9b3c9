//! From checked configuration to what workers read: SAs with their states parked, tables,
//! routes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipsec::crypto::KeyError;
use ipsec::ip::icmp_error::Heeded;
use ipsec::ip::reassemble::Bounds;
use ipsec::policy::PolicyParameters;
use ipsec::sa::association::{Published, SaParameters, share_homes, share_peers};
use ipsec::sa::database::Sad;
use ipsec::sa::replay::SavedWindow;
use ipsec::sa::state::Start;
use ipsec::sa::{Sa, SaSlot, SaState};
use ipsec::tables::{LocalAddresses, Tables, Unmatched};
use ipsec::time::{MILLISECOND, Time};

use crate::config::{self, Config, IcmpAccept, IcmpType};
use crate::route::{Fib, Neighbors, PortAddress, PortIndex, Route};
use crate::state::Reservation;

/// Why SAs and policies cannot be put together. Configuration that passed `check` does not get
/// here.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A key that the algorithm cannot take.
    #[error("sa {0}: {1}")]
    Key(String, KeyError),
    /// A window that cannot be restored.
    #[error("sa {0}: the saved window cannot be read")]
    Window(String),
    /// Tables that contradict themselves.
    #[error("{0}")]
    Tables(String),
}

/// Builds the SAs, in file order: an SA's slot is its place in the file. Of `policies` the bundles
/// count, whose SAs share a home.
///
/// # Errors
/// [`AssemblyError`].
pub fn sas(
    parameters: Vec<SaParameters>,
    policies: &[PolicyParameters],
    reservations: &[Reservation],
    now: Time,
) -> Result<Vec<Arc<Sa>>, AssemblyError> {
    let mut sas = Vec::with_capacity(parameters.len());
    for ((slot, parameters), start) in (0..).zip(parameters).zip(reservations) {
        let name = parameters.name.clone();
        let sa = Sa::new(SaSlot(slot), parameters, start.iv_mask)
            .map_err(|error| AssemblyError::Key(name, error))?;
        park(&sa, start, now)?;
        // At once: keys, state and SA then lie in one page, and a packet among a million reads all.
        sas.push(Arc::new(sa));
    }
    let mut own: Vec<&mut Sa> = sas.iter_mut().filter_map(Arc::get_mut).collect();
    let bundles = policies.iter().flat_map(|policy| &policy.bundles);
    share_homes(&mut own, bundles.map(Vec::as_slice));
    share_peers(&mut own);
    Ok(sas)
}

/// Parks a state as `start` has it, which no worker has taken yet.
///
/// # Errors
/// [`AssemblyError::Window`].
pub fn park(sa: &Sa, start: &Reservation, now: Time) -> Result<(), AssemblyError> {
    let state = SaState::new(
        &sa.parameters,
        &Start {
            sequence: start.sequence,
            window: saved(start, &sa.name)?,
            usage: start.usage,
        },
        now,
    );
    let Published {
        earlier_packets,
        earlier_bytes,
        ..
    } = &sa.published;
    earlier_packets.store(start.usage.packets, Ordering::Relaxed);
    earlier_bytes.store(start.usage.bytes, Ordering::Relaxed);
    sa.published
        .reserved_end
        .store(start.reserved_end, Ordering::Release);
    state.publish(&sa.published);
    if let Ok(mut parked) = sa.parked.lock() {
        *parked = Some(Box::new(state));
    }
    Ok(())
}

fn saved(start: &Reservation, name: &str) -> Result<Option<SavedWindow>, AssemblyError> {
    if start.window.is_empty() {
        return Ok(None);
    }
    let window = SavedWindow::from_bytes(&start.window);
    window
        .map(Some)
        .ok_or_else(|| AssemblyError::Window(name.to_owned()))
}

/// The ICMP errors that the configuration accepts.
#[must_use]
pub fn heeded(accept: &IcmpAccept) -> Heeded {
    let types = match accept {
        IcmpAccept::Any => return Heeded::ALL,
        IcmpAccept::None => return Heeded::NONE,
        IcmpAccept::Types(types) => types,
    };
    types.iter().fold(Heeded::NONE, |heeded, kind| match kind {
        IcmpType::TooBig => heeded.and_too_big(),
        IcmpType::Unreachable => heeded.and_types(3, 1),
        IcmpType::TimeExceeded => heeded.and_types(11, 3),
        IcmpType::ParameterProblem => heeded.and_types(12, 4),
        IcmpType::Redirect => heeded.and_types(5, 137),
        IcmpType::Number(number) => heeded.and_number(*number),
    })
}

/// Puts SAs and policies together.
///
/// # Errors
/// [`AssemblyError::Tables`].
pub fn tables(
    sas: &[Arc<Sa>],
    policies: &[PolicyParameters],
    local: impl IntoIterator<Item = IpAddr>,
    unmatched: Unmatched,
) -> Result<Tables, AssemblyError> {
    let sad = Sad::new(sas).map_err(|error| AssemblyError::Tables(error.to_string()))?;
    let local: LocalAddresses = local.into_iter().collect();
    Tables::new(sad, policies, local, unmatched)
        .map_err(|error| AssemblyError::Tables(error.to_string()))
}

/// The file's own routes, with the connected ones of its ports' addresses.
#[must_use]
pub fn static_fib(config: &Config) -> Fib {
    let routes = config.routes.iter().map(Route::from).collect();
    let addresses: Vec<PortAddress> = (0..)
        .zip(&config.ports)
        .flat_map(|(index, port)| {
            port.addresses
                .iter()
                .map(move |own: &config::PortAddress| PortAddress {
                    port: PortIndex(index),
                    address: own.address,
                    prefix_length: own.prefix_length,
                })
        })
        .collect();
    Fib::from_static(routes, &addresses)
}

/// How much one worker may hold of packets that are not complete.
#[must_use]
pub fn reassembly(fragments: config::Fragments) -> Bounds {
    Bounds {
        packets: fragments.packets as usize,
        bytes: fragments.bytes as usize,
        timeout_ns: u64::from(fragments.timeout_ms) * MILLISECOND,
    }
}

/// The file's own neighbours.
#[must_use]
pub fn static_neighbors(config: &Config) -> Neighbors {
    Neighbors::new(&config.neighbors)
}
