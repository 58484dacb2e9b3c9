//! Stands in for the real one: only what `cargo xtask ebpf` needs.

mod ebpf;

fn main() -> anyhow::Result<()> {
    ebpf::run(std::env::args().any(|argument| argument == "--check"))
}
