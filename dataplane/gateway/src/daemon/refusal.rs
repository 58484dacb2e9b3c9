//! Why the gateway does not run, and where it says so.

use std::fmt::{self, Display};

/// Why the gateway does not run, in one line.
#[derive(Debug)]
pub struct Refusal(String);

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Refusal {
    pub(super) fn of(error: impl Display) -> Self {
        Self(error.to_string())
    }
}

/// Where every automatic choice and warning goes, a line each.
pub type Print = fn(&str);
