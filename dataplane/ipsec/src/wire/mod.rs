//! Headers on the wire: checked views and builders. Hostile bytes give a verdict, never a panic.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
