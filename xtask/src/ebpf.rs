//! `cargo xtask ebpf`: the XDP program's build.

/// Builds the object, or with `check` compares it with the committed one.
///
/// # Errors
/// Always, until the recipe is in.
pub(crate) fn run(_check: bool) -> anyhow::Result<()> {
    anyhow::bail!("the BPF build recipe is not in this tree yet")
}
