//! The thread that reserves sequence numbers: asked by workers, it writes first and grants then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;
use ipsec::sa::association::Direction;
use ipsec::sa::{Sa, SaParameters, SaSlot};
use ipsec::time::Time;

use crate::config::Config;
use crate::daemon::refusal::{Print, Refusal};
use crate::state::{Directory, End, Grant, Keeper, Reached, Reservation, unreserved};
use crate::worker::requests::NumberRequests;

/// How often inbound limits are reviewed.
const REVIEW: Duration = Duration::from_secs(1);

/// Outbound numbers below which a review asks by itself: half of the smallest block.
const LEAST_REST: u64 = 2048;

/// The reservations of all SAs.
pub struct Numbers {
    /// Before `start`.
    keeper: Option<Keeper>,
    parker: Option<Parker>,
    requests: Option<Arc<NumberRequests>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Keeper>>,
}

impl Numbers {
    /// Reads the records; answers where each SA starts. Nothing is reserved before `start`, so
    /// that a start which is refused in between leaves everything as it was.
    ///
    /// # Errors
    /// Unreadable records, or a counter-mode key in a directory that was not declared fresh.
    pub fn open(
        config: &Config,
        sas: &[SaParameters],
    ) -> Result<(Self, Vec<Reservation>), Refusal> {
        let stop = Arc::new(AtomicBool::new(false));
        let Some(path) = &config.dataplane.state_dir else {
            let none = Self {
                keeper: None,
                parker: None,
                requests: None,
                stop,
                thread: None,
            };
            return Ok((none, unreserved(sas)));
        };
        let store = Directory::open(path).map_err(Refusal::of)?;
        let (keeper, starts) = Keeper::open(Box::new(store), sas, Time(0)).map_err(Refusal::of)?;
        let parker = Parker::new();
        let requests = Arc::new(NumberRequests::new(parker.unparker().clone()));
        let numbers = Self {
            keeper: Some(keeper),
            parker: Some(parker),
            requests: Some(requests),
            stop,
            thread: None,
        };
        Ok((numbers, starts))
    }

    /// Where workers ask; `None` without persistence.
    #[must_use]
    pub fn requests(&self) -> Option<Arc<NumberRequests>> {
        self.requests.clone()
    }

    /// Reserves the first block of every SA and starts the thread: the last step before packets.
    ///
    /// # Errors
    /// When the blocks cannot be written or the system gives no thread.
    pub fn start(&mut self, sas: &[Arc<Sa>], print: Print) -> Result<(), Refusal> {
        let (Some(mut keeper), Some(parker), Some(requests)) = (
            self.keeper.take(),
            self.parker.take(),
            self.requests.clone(),
        ) else {
            return Ok(());
        };
        keeper.begin().map_err(Refusal::of)?;
        let stop = Arc::clone(&self.stop);
        let sas = sas.to_vec();
        let thread = std::thread::Builder::new()
            .name("numbers".to_owned())
            .spawn(move || serve(keeper, (&parker, &requests), &sas, &stop, print))
            .map_err(Refusal::of)?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Ends the thread and writes where every SA stands, exactly. Call it when no worker runs.
    ///
    /// # Errors
    /// The write failed: all start as after a crash.
    pub fn close(self, sas: &[Arc<Sa>]) -> Result<(), Refusal> {
        let Some(thread) = self.thread else {
            return Ok(());
        };
        self.stop.store(true, Ordering::Release);
        if let Some(requests) = &self.requests {
            requests.ask(SaSlot(u32::MAX));
        }
        let keeper = thread
            .join()
            .map_err(|_| Refusal::of("the keeper of sequence numbers panicked"))?;
        let ends = sas.iter().filter_map(|sa| end(sa)).collect();
        keeper.close(ends).map_err(Refusal::of)
    }
}

/// Where an SA stands whose worker has parked its state.
fn end(sa: &Sa) -> Option<End> {
    let parked = sa.parked.lock().ok()?;
    let state = parked.as_ref()?;
    let window = state
        .export()
        .map_or_else(Vec::new, |window| window.to_bytes());
    Some(End {
        slot: sa.slot,
        sequence: state.sequence(),
        window,
        packets: state.packets(),
        bytes: state.bytes(),
    })
}

/// How far an SA is, as its owner last showed it.
fn reached(sa: &Sa) -> Reached {
    let sequence = sa.published.sequence.load(Ordering::Acquire);
    Reached {
        slot: sa.slot,
        needed: sa.published.needed.load(Ordering::Relaxed),
        sequence,
        packets: sa.published.packets.load(Ordering::Relaxed),
        bytes: sa.published.bytes.load(Ordering::Relaxed),
    }
}

fn serve(
    mut keeper: Keeper,
    (parker, requests): (&Parker, &NumberRequests),
    sas: &[Arc<Sa>],
    stop: &AtomicBool,
    print: Print,
) -> Keeper {
    let start = Instant::now();
    let mut reviewed = start;
    let inbound: Vec<&Arc<Sa>> = sas
        .iter()
        .filter(|sa| sa.parameters.direction == Direction::In)
        .collect();
    let mut asked: Vec<Reached> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let now = Time(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        asked.clear();
        while let Some(slot) = requests.next() {
            if let Some(sa) = sas.get(slot.index()) {
                asked.push(reached(sa));
            }
        }
        if !asked.is_empty() {
            grant(sas, keeper.extend(&asked, now), print);
        }
        if reviewed.elapsed() >= REVIEW {
            reviewed = Instant::now();
            let all: Vec<_> = inbound.iter().map(|sa| reached(sa)).collect();
            grant(sas, keeper.review(&all, now), print);
            let short = sas.iter().filter(|sa| is_running_short(sa));
            let short: Vec<_> = short.map(|sa| reached(sa)).collect();
            grant(sas, keeper.extend(&short, now), print);
        }
        parker.park_timeout(REVIEW);
    }
    keeper
}

/// An SA that has asked, and whose request was lost or could not be granted then.
fn is_running_short(sa: &Sa) -> bool {
    let needed = sa.published.needed.load(Ordering::Relaxed);
    let end = sa.published.reserved_end.load(Ordering::Relaxed);
    let least = match sa.parameters.direction {
        Direction::Out => LEAST_REST,
        Direction::In => 1,
    };
    end.saturating_sub(needed) < least
}

/// What is on disk now may be used.
fn grant<E: std::fmt::Display>(sas: &[Arc<Sa>], granted: Result<Vec<Grant>, E>, print: Print) {
    match granted {
        Ok(grants) => {
            for grant in grants {
                if let Some(sa) = sas.get(grant.slot.index()) {
                    sa.published
                        .reserved_end
                        .store(grant.reserved_end, Ordering::Release);
                }
            }
        }
        // The SAs go on with what they have, then drop as `no_reservation`, which is counted.
        Err(error) => print(&format!(
            "warning: sequence numbers could not be reserved: {error}"
        )),
    }
}
