//! Writes the state file off the hot path, one write at a time, and tries again when the disk refuses.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::control::state_file::{SavedState, StateFile};

/// First and longest pause after a failed write.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The task that writes. Dropping it lets the task end after the last state.
#[derive(Debug)]
pub struct Saver {
    states: mpsc::Sender<SavedState>,
    task: JoinHandle<()>,
}

impl Saver {
    /// Starts the task.
    #[must_use]
    pub fn start(file: StateFile) -> Self {
        // Room for one: while one is written, the next may wait; the core holds further ones back.
        let (states, queue) = mpsc::channel(1);
        Self {
            states,
            task: tokio::spawn(write(file, queue)),
        }
    }

    /// Whether a state may be handed in without waiting.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.states.capacity() > 0
    }

    /// Hands in a state; it replaces one that could not be written.
    pub fn hand_in(&self, state: SavedState) {
        let _full = self.states.try_send(state);
    }

    /// Writes a last state and waits for it, at most `patience`. Whether the task came to its end.
    pub async fn finish(self, state: SavedState, patience: Duration) -> bool {
        let Self { states, task } = self;
        let all = async move {
            let _ended = states.send(state).await;
            drop(states);
            task.await
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

async fn write(file: StateFile, mut queue: mpsc::Receiver<SavedState>) {
    let mut failed = false;
    while let Some(mut state) = queue.recv().await {
        let (mut pause, longest) = PAUSE;
        while let Err(text) = write_once(&file, &state).await {
            if !std::mem::replace(&mut failed, true) {
                warn!(
                    component = "app", error = text, path = %file.path().display(),
                    "the state can't be saved; the edge goes on and tries again, but a restart would lose changes"
                );
            }
            tokio::select! {
                () = sleep(pause) => pause = pause.saturating_mul(2).min(longest),
                newer = queue.recv() => match newer {
                    Some(newer) => state = newer,
                    // The end: one more try, then the file stays as it is.
                    None => {
                        let _last = write_once(&file, &state).await;
                        return;
                    }
                },
            }
        }
        if std::mem::take(&mut failed) {
            info!(component = "app", path = %file.path().display(), "the state is saved again");
        }
    }
}

async fn write_once(file: &StateFile, state: &SavedState) -> Result<(), String> {
    let (file, state) = (file.clone(), state.clone());
    match tokio::task::spawn_blocking(move || file.save(&state)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
