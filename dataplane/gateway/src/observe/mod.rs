//! What is shown of a gateway: one document for `replay --json`, `stats --json` and people.

pub mod stats;
