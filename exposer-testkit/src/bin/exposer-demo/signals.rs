//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::thread;

use exposer_testkit::interrupt;
use nix::sys::signal::{SigSet, Signal};

use crate::report;

/// Takes SIGINT and SIGTERM from here on. To be called before any other thread is started: all inherit the mask, so
/// that only the watching thread gets them. ([`exposer_testkit::process::Process`] gives its children an empty mask.)
pub fn watch() {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    if set.thread_block().is_err() {
        return;
    }
    thread::spawn(move || {
        if set.wait().is_ok() {
            report::step("interrupted: cleaning up (once more to end at once)");
            interrupt::raise();
        }
        if set.wait().is_ok() {
            report::step("ended at once; the next run sweeps what is left");
            std::process::exit(130);
        }
    });
}

/// Waits for the first signal.
pub fn wait() {
    while interrupt::sleep(std::time::Duration::from_secs(3_600)).is_ok() {}
}
