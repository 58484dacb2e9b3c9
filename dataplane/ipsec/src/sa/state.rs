//! What one owner changes about an SA, packet by packet.

/// Mutable state of one SA: belongs to one worker at a time, moves by value.
#[derive(Debug)]
pub struct SaState {}
