//! The programs that measure: built as shipped, run with a bar that follows their steps.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use xipsec_tests::{binary, shell};

use super::document;
use crate::cargo;
use crate::demo::Binaries;

/// The folder of the built binaries.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
    profile: String,
}

impl Programs {
    /// Builds gateway and measuring programs.
    pub(crate) fn build(profile: &str) -> Result<Self> {
        eprintln!("bench: building, profile {profile} (the first time takes minutes)");
        let folder = binary::build(profile, &["xipsec", "xipsec-bench"])?;
        Ok(Self {
            folder,
            profile: profile.to_owned(),
        })
    }

    /// The demo's part of them.
    pub(crate) fn of_demo(&self) -> Binaries {
        Binaries {
            xipsec: self.path("xipsec"),
            forwarder: self.path("xdp-forward"),
        }
    }

    /// Runs one of criterion's benches, with a filter of names, and returns its document.
    pub(crate) fn criterion(&self, name: &str, filter: &str, progress: &Progress) -> Result<Value> {
        progress.step(1, 1, "criterion (no steps are told)");
        let results = document::folder().join(format!("{name}.json"));
        fs::create_dir_all(document::folder())?;
        // Its own profile is the release one; another is for whoever tries this out.
        let profile = if self.profile == "release" {
            "bench"
        } else {
            &self.profile
        };
        let arguments = [
            "bench",
            "--quiet",
            "--package",
            "xipsec-bench",
            "--bench",
            name,
        ];
        let mut command = cargo::command(&arguments);
        command.args(["--profile", profile]);
        if !filter.is_empty() {
            command.args(["--", filter]);
        }
        command.env("XIPSEC_BENCH_RESULTS", &results);
        shell::run(&mut command)?;
        let text = fs::read_to_string(&results).with_context(|| format!("no results of {name}"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Path of one program.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Steps done and to do: a bar on a terminal, a line a step elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    section: &'static str,
}

impl Progress {
    /// Of a section whose steps are told later.
    pub(crate) fn new(section: &'static str) -> Result<Self> {
        let style = ProgressStyle::with_template(
            "{spinner} {prefix:12} [{bar:24}] {pos:>2}/{len:2} {elapsed:>4} {msg}",
        )?;
        let bar = ProgressBar::new(1).with_style(style.progress_chars("=> "));
        bar.set_prefix(section);
        bar.enable_steady_tick(Duration::from_millis(100));
        Ok(Self { bar, section })
    }

    /// Step `done` of `steps` begins.
    pub(crate) fn step(&self, done: u64, steps: u64, what: &str) {
        self.bar.set_length(steps);
        self.bar.set_position(done.saturating_sub(1));
        self.bar.set_message(what.to_owned());
        if self.bar.is_hidden() {
            eprintln!("{} {done}/{steps} {what}", self.section);
        }
    }

    /// The end.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Runs a measuring program, follows its steps, and returns its document.
pub(crate) fn run(mut command: Command, progress: &Progress) -> Result<Value> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = shell::line(&command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let (said, mut printed) = (child.stderr.take(), child.stdout.take());
    let reader = thread::spawn(move || {
        let mut text = String::new();
        match &mut printed {
            Some(printed) => printed.read_to_string(&mut text).map(|_| text),
            None => Ok(text),
        }
    });
    let mut errors = String::new();
    for line in said
        .into_iter()
        .flat_map(|said| BufReader::new(said).lines())
    {
        let line = line?;
        match step(&line) {
            Some((done, steps, what)) => progress.step(done, steps, what),
            None => errors += &format!("{line}\n"),
        }
    }
    let status = child.wait()?;
    let text = reader
        .join()
        .map_err(|_| anyhow::anyhow!("no output of {line}"))??;
    if !status.success() {
        bail!("{line}: {status}\n{errors}");
    }
    serde_json::from_str(&text).with_context(|| format!("{line}: not JSON: {text}"))
}

/// `step 3/9 what`.
fn step(line: &str) -> Option<(u64, u64, &str)> {
    let (counts, what) = line.strip_prefix("step ")?.split_once(' ')?;
    let (done, steps) = counts.split_once('/')?;
    Some((done.parse().ok()?, steps.parse().ok()?, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_errors() {
        assert_eq!(step("step 3/9 by size"), Some((3, 9, "by size")));
        assert_eq!(step("thread 'main' panicked"), None);
        assert_eq!(step("step x/9 by size"), None);
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let progress = Progress::new("test").expect("a bar");
        let mut command = Command::new("sh");
        command.args(["-c", "echo step 1/1 x >&2; echo broken >&2; exit 3"]);
        let error = run(command, &progress).map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("broken") && text.contains('3')));
        let mut command = Command::new("sh");
        command.args(["-c", "echo '{\"records\": []}'"]);
        assert!(run(command, &progress).is_ok());
    }
}
