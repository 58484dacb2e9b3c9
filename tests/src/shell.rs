//! Running programs and waiting for conditions, with errors that show what was run and said.

use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(20);

/// Runs `command` to its end and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot start or exits with anything but success; the text shows both its outputs.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{}", describe(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` to its end and returns status and outputs, whatever the status is.
///
/// # Errors
/// When it cannot start.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("cannot run {}", line(command)))
}

/// One paragraph about a finished command: the line, the status, both outputs.
pub fn describe(command: &Command, output: &Output) -> String {
    format!(
        "{}: {}\n{}{}",
        line(command),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )
}

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Looks at `condition` until it holds or `limit` has passed.
///
/// # Errors
/// When it does not hold in time; `what` names it in the message. Errors of the condition end the
/// wait at once.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > limit {
            bail!("waited {} s in vain for: {what}", limit.as_secs());
        }
        sleep(POLL);
    }
    Ok(())
}
