//! What a measuring program tells the one that started it: steps on standard error, one JSON
//! document on standard output.

use serde_json::{Value, json};

/// Steps done and to do.
pub struct Progress {
    done: usize,
    steps: usize,
}

impl Progress {
    /// Of `steps` steps none is done.
    #[must_use]
    pub const fn new(steps: usize) -> Self {
        Self { done: 0, steps }
    }

    /// Says what happens now, in a form that `cargo xtask bench` makes a bar of.
    pub fn step(&mut self, what: &str) {
        self.done += 1;
        eprintln!("step {}/{} {what}", self.done, self.steps);
    }
}

/// The result of a program: flat records, one a figure or a few that belong together, and what was
/// left out with the reason.
#[derive(Default)]
pub struct Document {
    records: Vec<Value>,
    missing: Vec<String>,
}

impl Document {
    /// Adds a record: an object of names and numbers.
    pub fn record(&mut self, record: Value) {
        self.records.push(record);
    }

    /// Says what was not measured and why.
    pub fn missing(&mut self, text: impl Into<String>) {
        self.missing.push(text.into());
    }

    /// Prints the document.
    #[expect(clippy::print_stdout, reason = "the result of a program")]
    pub fn print(self) {
        println!(
            "{}",
            json!({"records": self.records, "missing": self.missing})
        );
    }

    /// Writes the document to the file that `XIPSEC_BENCH_RESULTS` names, if it names one: for
    /// programs whose standard output is criterion's.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn save_if_asked(self) {
        if let Some(path) = std::env::var_os("XIPSEC_BENCH_RESULTS") {
            let text = json!({"records": self.records, "missing": self.missing}).to_string();
            std::fs::write(path, text).expect("a file for the results");
        }
    }

    /// The records so far.
    #[must_use]
    pub fn records(&self) -> &[Value] {
        &self.records
    }
}
