//! Goal: whatever fuzzing has found stays found. Every seed and every file of the committed corpora
//! goes through its target; a file named `crash-…` is one that once failed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use xipsec_fuzz_targets::TARGETS;

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for seed in (target.seeds)() {
        (target.run)(&seed);
        // What a fuzzer tries first.
        for length in [seed.len() / 2, seed.len().saturating_sub(1)] {
            (target.run)(&seed[..length]);
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has no corpus");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        // Caught only to say which file it was.
        let run = std::panic::AssertUnwindSafe(|| (target.run)(&bytes));
        assert!(
            std::panic::catch_unwind(run).is_ok(),
            "{} fails",
            file.display()
        );
    }
}

macro_rules! replayed {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })+

        #[test]
        fn no_target_is_left_out() {
            let named = [$(stringify!($name)),+];
            assert_eq!(TARGETS.map(|target| target.name)[..], named);
        }
    };
}

replayed!(wire crypto inbound outbound quote config control capture state);
