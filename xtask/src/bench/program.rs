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
    /// Names of criterion's benches and their programs.
    benches: Vec<(&'static str, PathBuf)>,
}

impl Programs {
    /// Builds gateway, measuring programs and those of criterion's benches that are named.
    pub(crate) fn build(profile: &str, benches: &[&'static str]) -> Result<Self> {
        eprintln!("bench: building, profile {profile} (the first time takes minutes)");
        // First, since cargo builds the package's programs beside them and puts them where the
        // others belong: without `panic = "abort"`.
        let benches = build_benches(profile, benches)?;
        let folder = binary::build(profile, &["xipsec", "xipsec-bench"])?;
        Ok(Self { folder, benches })
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
        let mut built = self.benches.iter();
        let (_, path) = built
            .find(|(built, _)| *built == name)
            .with_context(|| format!("the bench {name} is not built"))?;
        let mut command = Command::new(path);
        command.current_dir(binary::workspace().join("bench"));
        command.arg("--bench");
        if !filter.is_empty() {
            command.arg(filter);
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

/// Builds criterion's benches and asks cargo where their programs are.
fn build_benches(profile: &str, benches: &[&'static str]) -> Result<Vec<(&'static str, PathBuf)>> {
    if benches.is_empty() {
        return Ok(Vec::new());
    }
    // Its own profile is the release one; another is for whoever tries this out.
    let profile = if profile == "release" {
        "bench"
    } else {
        profile
    };
    let mut command = cargo::command(&["bench", "--quiet", "--no-run"]);
    command.args(["--package", "xipsec-bench", "--profile", profile]);
    command.arg("--message-format=json-render-diagnostics");
    for name in benches {
        command.args(["--bench", name]);
    }
    let said = shell::run(&mut command)?;
    let path = |name| executable(&said, name).with_context(|| format!("no program of {name}"));
    benches
        .iter()
        .map(|name| Ok((*name, path(name)?)))
        .collect()
}

/// Where cargo's messages say that a bench's program is.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut of_bench = messages.filter(|message: &Value| {
        let target = &message["target"];
        target["name"] == name && target["kind"][0] == "bench"
    });
    of_bench.find_map(|message| Some(message["executable"].as_str()?.into()))
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
    fn a_benchs_program_is_told_from_others_of_its_name() {
        let messages = r#"{"reason":"build-script-executed"}
{"target":{"name":"crypto","kind":["lib"]},"executable":null}
{"target":{"name":"crypto","kind":["bin"]},"executable":"/wrong"}
not JSON
{"target":{"name":"crypto","kind":["bench"]},"executable":"/right"}
"#;
        assert_eq!(executable(messages, "crypto"), Some("/right".into()));
        assert_eq!(executable(messages, "stages"), None);
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
