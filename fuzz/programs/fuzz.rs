//! One libFuzzer program for all targets: the variable `XIPSEC_FUZZ_TARGET` names the one that
//! runs. One program, because its instrumented dependencies take longer to build than the rest
//! to run.
//!
//! With `XIPSEC_FUZZ_SEEDS=FOLDER` it writes the target's seeds there before it begins.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use xipsec_fuzz_targets::{TARGETS, Target};

/// The target that the environment names.
fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("XIPSEC_FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|target| target.name == name);
        target.unwrap_or_else(|| panic!("XIPSEC_FUZZ_TARGET={name} is none of the targets"))
    })
}

fuzz_target!(
    init: {
        let target = chosen();
        if let Ok(folder) = std::env::var("XIPSEC_FUZZ_SEEDS") {
            for (number, seed) in (target.seeds)().iter().enumerate() {
                let path = std::path::Path::new(&folder).join(format!("seed-{number:03}"));
                std::fs::write(path, seed).expect("the seeds' folder can be written");
            }
        }
    },
    |bytes: &[u8]| (chosen().run)(bytes)
);
