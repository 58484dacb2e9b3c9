//! Ctrl-C: namespaces and processes of this run go away however the run ends.

use std::process;
use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use xipsec_tests::{files, netns};

/// Exit status of a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// From now on SIGINT, SIGTERM and SIGHUP remove every namespace that this process has made, with
/// what runs inside, and end the process. Values that live on other threads are not dropped.
pub(crate) fn clean_up_when_interrupted() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("no event loop for signals")?;
    let listen = async {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        anyhow::Ok((interrupt, terminate, signal(SignalKind::hangup())?))
    };
    let (mut interrupt, mut terminate, mut hangup) = runtime.block_on(listen)?;
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        eprintln!("\nxtask: interrupted, cleaning up");
        // Twice: the main thread may be just making the next one.
        for _ in 0..2 {
            netns::remove_own();
        }
        files::remove_own();
        process::exit(INTERRUPTED);
    });
    Ok(())
}
