//! What the control side asks of workers.

use ipsec::sa::SaSlot;
use ipsec::time::Time;

/// So many ESP dummies by one SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The SA, an outbound one.
    pub slot: SaSlot,
    /// How many are still to be sent.
    pub count: u32,
}

/// The order that a worker is at.
#[derive(Clone, Copy)]
pub(super) struct UnderWay {
    pub order: Order,
    /// When a dummy of it left last, or when it began.
    pub progress: Time,
}
