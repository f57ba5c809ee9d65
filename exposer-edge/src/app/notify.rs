//! Tells systemd how it goes: READY, WATCHDOG, STOPPING. Without systemd nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The daemon serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The daemon goes down and will take at most `at_most`.
pub fn stopping(at_most: Duration) {
    let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        debug!(component = "app", %error, "systemd could not be told");
    }
}
