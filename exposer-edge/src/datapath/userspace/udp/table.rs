//! Sessions of one binding, by client and public address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::session::Session;
use crate::datapath::userspace::limits::lock;

/// Who speaks to which of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The client.
    pub client: SocketAddr,
    /// The public address and port that the client used, and that replies leave from.
    pub public: SocketAddr,
}

/// The live sessions of one binding.
#[derive(Debug, Default)]
pub struct SessionTable {
    sessions: Mutex<HashMap<SessionKey, Arc<Session>>>,
}

impl SessionTable {
    /// The session of `key`, unless it is ending.
    pub fn live(&self, key: SessionKey) -> Option<Arc<Session>> {
        let sessions = lock(&self.sessions);
        sessions.get(&key).filter(|session| !session.ending()).cloned()
    }

    /// Takes a session in. One that is ending and has the same key makes room.
    pub fn insert(&self, key: SessionKey, session: Arc<Session>) {
        lock(&self.sessions).insert(key, session);
    }

    /// Forgets `session`, unless another one has its place already.
    pub fn remove(&self, key: SessionKey, session: &Arc<Session>) {
        let mut sessions = lock(&self.sessions);
        if sessions
            .get(&key)
            .is_some_and(|present| Arc::ptr_eq(present, session))
        {
            sessions.remove(&key);
            if sessions.capacity() > 64 && sessions.len() < sessions.capacity() / 4 {
                sessions.shrink_to_fit();
            }
        }
    }

    /// All clients that have a live session, sorted.
    #[must_use]
    pub fn clients(&self) -> Vec<SessionKey> {
        let sessions = lock(&self.sessions);
        let live = sessions.iter().filter(|(_, session)| !session.ending());
        let mut keys: Vec<SessionKey> = live.map(|(key, _)| *key).collect();
        drop(sessions);
        keys.sort_unstable();
        keys
    }
}
