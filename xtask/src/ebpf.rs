//! `cargo xtask ebpf [--check]`: builds the XDP object from `ebpf/` and keeps its build record.
//!
//! The object is committed, so that nothing else needs a BPF toolchain. Its record holds the hash
//! of every file it was built from and the versions of the tools: a plain test fails when the
//! sources have moved on, and `--check` proves on a machine with the same tools that these sources
//! give these bytes.

mod record;
mod toolchain;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use record::Record;
use toolchain::Toolchain;

/// The committed object, from the root of the repository.
const OBJECT: &str = "ebpf/prebuilt/xipsec_steer.o";
const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and writes it with its record; with `check`, compares instead, and says
/// `compared` or `skipped: compiler is X, record says Y`.
///
/// # Errors
/// A tool that is missing and cannot be had, a build that fails, or bytes that differ.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let root = root()?;
    let toolchain = match Toolchain::find(&root) {
        Ok(toolchain) => toolchain,
        Err(missing) if check => {
            println!(
                "skipped: compiler is missing, record says {}",
                Record::read(&root)?.tools()
            );
            eprintln!("{missing:#}");
            return Ok(());
        }
        Err(missing) => return Err(missing),
    };
    let mut built = Record::of_sources(&root)?;
    toolchain.describe(&mut built)?;
    if check {
        let committed = Record::read(&root)?;
        if built.tools() != committed.tools() {
            println!(
                "skipped: compiler is {}, record says {}",
                built.tools(),
                committed.tools()
            );
            return Ok(());
        }
    }
    let object = build(&root, &toolchain)?;
    if check {
        let committed = fs::read(root.join(OBJECT))?;
        ensure!(
            object == committed,
            "ebpf: the sources build {} bytes that differ from the {} of {OBJECT} (run `cargo \
             xtask ebpf` and commit the result)",
            object.len(),
            committed.len(),
        );
        println!("compared");
        return Ok(());
    }
    built.object = record::hash(&object);
    fs::create_dir_all(root.join("ebpf/prebuilt"))?;
    fs::write(root.join(OBJECT), &object)?;
    built.write(&root)?;
    println!(
        "{OBJECT}: {} bytes, built with {}",
        object.len(),
        built.tools()
    );
    Ok(())
}

/// The root of the repository.
fn root() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .map(Path::to_path_buf)
        .context("xtask stands in the repository's root")
}

/// Compiles, links and strips; returns the object's bytes.
fn build(root: &Path, toolchain: &Toolchain) -> anyhow::Result<Vec<u8>> {
    let target_directory = root.join("target/ebpf");
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(root.join("ebpf"))
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target_directory)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root)?);
    // What the caller's own build was told must not reach this one.
    for variable in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(variable);
    }
    succeed(&mut cargo).context("ebpf: the program does not build")?;
    let linked = target_directory.join(TARGET).join("release/xipsec-steer");
    let stripped = target_directory.join("xipsec_steer.o");
    // Debug information goes, BTF stays: aya and bpftool need it.
    succeed(
        toolchain
            .strip()
            .arg("-g")
            .arg(&linked)
            .arg("-o")
            .arg(&stripped),
    )?;
    Ok(fs::read(stripped)?)
}

/// Compiler flags. Source paths end up in the BTF's line information: they are made the same on
/// every machine.
fn rustflags(root: &Path) -> anyhow::Result<OsString> {
    let mut flags: Vec<OsString> = [
        "--cfg=bpf_target_arch=\"x86_64\"",
        "-Cdebuginfo=2",
        "-Ctarget-cpu=v3",
        "-Clinker=bpf-linker",
        "-Clink-arg=--btf",
        // Addresses lie at odd offsets in a frame: one load instead of eight.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    ]
    .map(OsString::from)
    .into();
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    };
    remap(root, "xipsec");
    let registries = cargo_home()?.join("registry/src");
    if let Ok(entries) = fs::read_dir(registries) {
        for entry in entries {
            remap(&entry?.path(), "crates");
        }
    }
    Ok(flags.join(std::ffi::OsStr::new("\u{1f}")))
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::home_dir().context("ebpf: no home directory (set CARGO_HOME)")?;
    Ok(home.join(".cargo"))
}

/// Runs a command to its end; its name and what it printed make the error.
fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("{name} cannot be started"))?;
    if !output.status.success() {
        bail!(
            "{name} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The first line that a command prints.
fn first_line(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("{name} cannot be started"))?;
    ensure!(output.status.success(), "{name} failed ({})", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Needs no BPF toolchain: fails when a source of the object changed and it was not rebuilt.
    #[test]
    fn the_record_matches_the_sources_and_the_object() {
        let root = root().unwrap();
        let committed = Record::read(&root).unwrap();
        let sources = Record::of_sources(&root).unwrap();
        assert_eq!(
            sources.sources, committed.sources,
            "ebpf/ changed since the object was built: run `cargo xtask ebpf`"
        );
        let object = fs::read(root.join(OBJECT)).unwrap();
        assert_eq!(
            record::hash(&object),
            committed.object,
            "{OBJECT} is not what its record says: run `cargo xtask ebpf`"
        );
    }

    #[test]
    fn the_object_names_no_directory_of_its_builder() {
        let object = fs::read(root().unwrap().join(OBJECT)).unwrap();
        for builder in [root().unwrap(), cargo_home().unwrap()] {
            let path = builder.as_os_str().as_encoded_bytes();
            assert!(
                !object.windows(path.len()).any(|window| window == path),
                "{builder:?}"
            );
        }
    }
}
