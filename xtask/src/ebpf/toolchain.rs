//! A compiler that knows the BPF target, and the tools beside it.
//!
//! Two are supported. Debian's compiler for browsers (`rustc-web`) comes with `core` built for BPF:
//! its packages are unpacked below `target/`, the system stays as it is. Who has rustup instead
//! uses a nightly with `rust-src`, which builds `core` itself.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::record::Record;
use super::{first_line, succeed};

/// The linker's LLVM is the compiler's, so its version is tied to that of the compiler.
const LINKER_VERSION: &str = "0.10.4";
/// Where Debian's packages are unpacked, from the root of the repository.
const UNPACKED: &str = "target/ebpf-toolchain";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

enum Compiler {
    /// The root below which Debian's packages lie: unpacked or `/`.
    Debian(PathBuf),
    /// rustup's nightly with rust-src.
    Nightly,
}

/// What builds the object.
pub(super) struct Toolchain {
    compiler: Compiler,
    /// Directory of bpf-linker.
    linker: PathBuf,
    strip: &'static str,
}

impl Toolchain {
    /// Finds the tools, or installs them below `target/`.
    pub(super) fn find(root: &Path) -> anyhow::Result<Self> {
        let strip = strip()?;
        Ok(Self {
            compiler: compiler(root)?,
            linker: linker(root)?,
            strip,
        })
    }

    /// Notes the versions.
    pub(super) fn describe(&self, record: &mut Record) -> anyhow::Result<()> {
        let mut compiler = match &self.compiler {
            Compiler::Debian(root) => {
                let mut command = Command::new(root.join("usr/bin/rustc"));
                command.env("LD_LIBRARY_PATH", root.join(LIBRARIES));
                command
            }
            Compiler::Nightly => rustup("rustc"),
        };
        record.compiler = first_line(compiler.arg("--version"))?;
        record.linker = first_line(Command::new(self.linker.join("bpf-linker")).arg("--version"))?;
        let strip = Command::new(self.strip).arg("--version").output()?;
        let text = String::from_utf8_lossy(&strip.stdout).into_owned();
        let version = text
            .lines()
            .find(|line| line.contains("version"))
            .unwrap_or("unknown");
        record.strip = format!("llvm-strip: {}", version.trim());
        Ok(())
    }

    /// `cargo`, set up for the compiler and the linker.
    pub(super) fn cargo(&self) -> Command {
        let mut cargo = match &self.compiler {
            Compiler::Debian(root) => {
                let mut cargo = Command::new(own_cargo());
                cargo
                    .env("RUSTC", root.join("usr/bin/rustc"))
                    .env("LD_LIBRARY_PATH", root.join(LIBRARIES))
                    // One unstable attribute of one crate; nothing else may use any.
                    .env("RUSTC_BOOTSTRAP", "aya_ebpf");
                cargo
            }
            Compiler::Nightly => {
                let mut cargo = rustup("cargo");
                cargo.args(["-Z", "build-std=core"]).env_remove("RUSTC");
                cargo
            }
        };
        let mut path = OsString::from(&self.linker);
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        cargo.env("PATH", path);
        cargo
    }

    /// `llvm-strip`.
    pub(super) fn strip(&self) -> Command {
        Command::new(self.strip)
    }
}

/// The cargo that runs this.
fn own_cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A tool of rustup's nightly.
fn rustup(tool: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", tool])
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn strip() -> anyhow::Result<&'static str> {
    let known = [
        "llvm-strip",
        "llvm-strip-14",
        "llvm-strip-19",
        "llvm-strip-22",
    ];
    let works = |name: &&str| first_line(Command::new(name).arg("--version")).is_ok();
    known
        .into_iter()
        .find(works)
        .context("ebpf: llvm-strip is missing (`cargo xtask setup`, or install the package llvm)")
}

fn compiler(root: &Path) -> anyhow::Result<Compiler> {
    let unpacked = root.join(UNPACKED);
    for place in [&unpacked, Path::new("/")] {
        if has_bpf_core(&place.join("usr/lib")) {
            return Ok(Compiler::Debian(place.to_path_buf()));
        }
    }
    if has_nightly_sources() {
        return Ok(Compiler::Nightly);
    }
    unpack(&unpacked).context(
        "ebpf: no compiler for BPF: neither Debian's rustc-web with libstd-rust-web-dev-bpf nor \
         rustup's nightly with rust-src (on Debian: `apt-get update`; elsewhere: `rustup toolchain \
         install nightly --component rust-src`)",
    )?;
    if !has_bpf_core(&unpacked.join("usr/lib")) {
        bail!(
            "ebpf: Debian's packages hold no core library for BPF (rustup's nightly with rust-src \
             does as well)"
        );
    }
    Ok(Compiler::Debian(unpacked))
}

fn has_bpf_core(libraries: &Path) -> bool {
    libraries.join("rustlib/bpfel-unknown-none/lib").is_dir()
}

fn has_nightly_sources() -> bool {
    first_line(rustup("rustc").args(["--print", "sysroot"])).is_ok_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
    })
}

/// Downloads Debian's packages and unpacks them into `place`, all or nothing.
fn unpack(place: &Path) -> anyhow::Result<()> {
    let packages = packages()?;
    let partial = place.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let archives = partial.join("archives");
    fs::create_dir_all(&archives)?;
    succeed(
        Command::new("apt-get")
            .arg("download")
            .args(&packages)
            .current_dir(&archives),
    )?;
    for archive in fs::read_dir(&archives)? {
        succeed(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(archive?.path())
                .arg(&partial),
        )?;
    }
    fs::remove_dir_all(&archives)?;
    Ok(fs::rename(&partial, place)?)
}

/// The compiler, its libraries (whose names hold versions) and the core library for BPF.
fn packages() -> anyhow::Result<Vec<String>> {
    let mut packages = vec!["rustc-web".to_owned(), "libstd-rust-web-dev-bpf".to_owned()];
    let mut next = 0;
    while let Some(package) = packages.get(next).cloned() {
        let output = Command::new("apt-cache")
            .args(["depends", &package])
            .output()?;
        if !output.status.success() {
            bail!("apt-cache knows no package {package}");
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some(name) = line.trim().strip_prefix("Depends: ") else {
                continue;
            };
            let is_ours = name.starts_with("libstd-rust-web") || name.starts_with("libllvm");
            if is_ours && !packages.iter().any(|known| known == name) {
                packages.push(name.to_owned());
            }
        }
        next += 1;
    }
    Ok(packages)
}

/// The directory of a bpf-linker of the right version; installs it below `target/tools`.
fn linker(root: &Path) -> anyhow::Result<PathBuf> {
    let own = root.join("target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    for directory in std::iter::once(own.clone()).chain(std::env::split_paths(&path)) {
        let version = first_line(Command::new(directory.join("bpf-linker")).arg("--version"));
        if version.is_ok_and(|version| version.ends_with(LINKER_VERSION)) {
            return Ok(directory);
        }
    }
    let mut install = Command::new(own_cargo());
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--root",
        ])
        .arg(root.join("target/tools"));
    succeed(&mut install).with_context(|| {
        format!("ebpf: bpf-linker {LINKER_VERSION} is missing and cannot be installed")
    })?;
    Ok(own)
}
