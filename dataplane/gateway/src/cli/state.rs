//! `xipsec state`: what outlives a restart, looked at and overridden without a gateway.

use std::path::Path;
use std::process::ExitCode;

use ipsec::sa::association::Direction;
use ipsec::sa::lifetime::Usage;
use serde_json::json;

use crate::cli::arguments::StateCommand;
use crate::cli::{FAILED, check, complain, say, table};
use crate::config::Config;
use crate::state::{self, Shown, StateError};

/// Runs one of the `state` commands.
#[must_use]
pub fn run(command: &StateCommand) -> ExitCode {
    let file = match command {
        StateCommand::Show { config, .. }
        | StateCommand::Init { config }
        | StateCommand::AcceptLoss { config, .. } => config,
    };
    let config = match check::load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some(directory) = &config.dataplane.state_dir else {
        let file = config.file.display();
        complain(&format_args!(
            "{file}: state_dir is \"\": nothing is kept (a directory)"
        ));
        return ExitCode::from(FAILED);
    };
    let done = match command {
        StateCommand::Show { json, .. } => show(directory, &config, *json),
        StateCommand::Init { .. } => state::init(directory),
        StateCommand::AcceptLoss { sa, all, .. } => {
            let name = if *all { None } else { sa.as_deref() };
            state::accept_loss(directory, &config.sas, name)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// Refuses keys that a gateway may have used, because a replay's packets would repeat its IVs.
/// Records that cannot be read are worth a warning, not more: a replay needs no root.
///
/// # Errors
/// One line that names the SAs.
pub fn refuse_recorded_keys(config: &Config) -> Result<(), String> {
    let Some(directory) = &config.dataplane.state_dir else {
        return Ok(());
    };
    match state::recorded(directory, &config.sas) {
        Ok(names) if names.is_empty() => Ok(()),
        Ok(names) => Err(format!(
            "sa {}: {} has a record of its key, so a gateway may have used it (other keys, or \
             --reuse-keys)",
            names.join(", "),
            directory.display()
        )),
        Err(error) => {
            complain(&format_args!("warning: {error}"));
            Ok(())
        }
    }
}

fn show(directory: &Path, config: &Config, as_json: bool) -> Result<(), StateError> {
    let (sas, others) = state::show(directory, &config.sas)?;
    if as_json {
        let rows: Vec<_> = sas.iter().map(json_row).collect();
        let document = json!({
            "state_dir": directory.display().to_string(),
            "sas": rows,
            "other_records": others,
        });
        say(&document.to_string());
        return Ok(());
    }
    let header = [
        "NAME",
        "DIRECTION",
        ">RESERVED",
        ">PACKETS",
        ">BYTES",
        ">AGE",
        "STOPPED",
    ];
    say(table::render(&header, sas.iter().map(row)).trim_end());
    if others > 0 {
        say(&format!(
            "{others} records of keys that are not in this file"
        ));
    }
    Ok(())
}

fn json_row(sa: &Shown) -> serde_json::Value {
    let usage = sa.usage();
    json!({
        "lifetime_packets": usage.map(|usage| usage.packets),
        "lifetime_bytes": usage.map(|usage| usage.bytes),
        "age_seconds": usage.map(|usage| usage.seconds),
        "name": sa.name,
        "direction": word(sa.direction),
        "reserved_end": sa.record.as_ref().map(|record| record.reserved_end),
        "exact_window": sa.record.as_ref().is_some_and(|record| !record.window.is_empty()),
    })
}

fn row(sa: &Shown) -> Vec<String> {
    let reserved = sa.record.as_ref();
    let stopped = match (&sa.record, sa.direction) {
        (None, _) => "",
        (Some(record), Direction::In) if record.window.is_empty() => "running or crashed",
        (Some(_), Direction::In) => "cleanly",
        (Some(_), Direction::Out) => "",
    };
    let used = |part: fn(Usage) -> u64| {
        sa.usage()
            .map_or_else(String::new, |it| part(it).to_string())
    };
    vec![
        sa.name.clone(),
        word(sa.direction).to_owned(),
        reserved.map_or_else(|| String::from("nothing"), |it| it.reserved_end.to_string()),
        used(|usage| usage.packets),
        used(|usage| usage.bytes),
        used(|usage| usage.seconds),
        stopped.to_owned(),
    ]
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}
