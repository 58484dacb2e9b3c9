//! `xipsec replay`.

use std::process::ExitCode;

use crate::cli::arguments::Replay;
use crate::cli::{FAILED, USAGE, check, complain, say, show};
use crate::config::Purpose;
use crate::offline::replay::{self, Plan, ReplayError};

/// Runs captures through the pipeline and prints the counters.
#[must_use]
pub fn run(arguments: &Replay) -> ExitCode {
    let config = match check::accept(&arguments.config, Purpose::Replay) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if !arguments.reuse_keys
        && let Err(why) = crate::cli::state::refuse_recorded_keys(&config)
    {
        complain(&why);
        return ExitCode::from(FAILED);
    }
    let plan = Plan {
        inputs: arguments.inputs.clone(),
        outputs: arguments.outputs.clone(),
        drops: arguments.drops.clone(),
    };
    let outcome = match replay::run(config, &plan) {
        Ok(outcome) => outcome,
        Err(error) => {
            complain(&error);
            let usage = matches!(error, ReplayError::UnknownPort(_));
            return ExitCode::from(if usage { USAGE } else { FAILED });
        }
    };
    if arguments.json {
        say(&serde_json::to_string(&outcome.document).unwrap_or_default());
    } else {
        say(show::statistics(&outcome.document).trim_end());
    }
    outcome.damage.iter().for_each(complain);
    if outcome.damage.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}
