//! What a client may have the running gateway do, checked before a worker hears of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipsec::sa::Sa;
use ipsec::sa::association::{Direction, Mode, NO_HOME, Protocol};
use ipsec::sa::lifetime::Stage;
use ipsec::time::Time;
use serde_json::Value;

use crate::control::protocol::Dummies;
use crate::control::server::Refused;
use crate::worker::orders::Order;

/// The order for dummies that `parameters` mean, and the worker that gets it: the SA's home, or the
/// first where it has none.
//= T76 (RFC 4303 sections 2.6, 2.7)
pub(super) fn dummies(
    sas: &[Arc<Sa>],
    now: Time,
    parameters: &Value,
) -> Result<(u16, Order), Refused> {
    let wanted: Dummies = serde_json::from_value(parameters.clone())
        .map_err(|error| Refused::new("InvalidParameter", format!("{error} (sa and count)")))?;
    let name = &wanted.sa;
    let refuse = |kind, why: &str| Err(Refused::new(kind, format!("sa {name}: {why}")));
    let Some(sa) = sas.iter().find(|sa| *sa.name == **name) else {
        return refuse("NoSuchSa", "there is none (one of `xipsec sa list`)");
    };
    let parameters = &sa.parameters;
    if parameters.direction == Direction::In {
        return refuse("WrongDirection", "it receives (an SA of direction out)");
    }
    if parameters.protocol == Protocol::Ah {
        return refuse("Unsupported", "AH has no dummies (an SA of protocol esp)");
    }
    if parameters.mode == Mode::Transport {
        return refuse(
            "Unsupported",
            "dummies need a tunnel (an SA of mode tunnel)",
        );
    }
    if wanted.count == 0 {
        return refuse("InvalidParameter", "no dummies (a count from 1)");
    }
    if sa.published.stage(&parameters.lifetime, now) == Stage::Dead {
        return refuse("Expired", "its hard lifetime has passed (a new SA)");
    }
    let home = sa.home.load(Ordering::Relaxed);
    let order = Order {
        slot: sa.slot,
        count: wanted.count,
    };
    Ok((if home == NO_HOME { 0 } else { home }, order))
}
