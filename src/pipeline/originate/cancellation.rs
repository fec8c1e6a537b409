//! Which endpoint holds which session, so that a request to cancel it reaches the same server.
//!
//! A key is removed when its stream ends, so there is at most one for each open stream. All generations of
//! an upstream share them: a session from before a reload can be cancelled after it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::pipeline::originate::servers::endpoint::Endpoint;
use crate::protocols::cancel::{Cancellation, FirstBytes, KeyReader, Reading};

/// By the key that the server announced.
type Endpoints = HashMap<Box<[u8]>, Arc<Endpoint>>;

#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<Endpoints>>);

impl Sessions {
    pub(super) fn endpoint(&self, key: &[u8]) -> Option<Arc<Endpoint>> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        // Each change is one insertion or removal: a panic leaves no partial state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose session can be cancelled once its key is known, until this is dropped.
pub(crate) struct Cancellable {
    sessions: Sessions,
    endpoint: Arc<Endpoint>,
    key: OnceLock<Box<[u8]>>,
    announced: fn() -> Box<dyn KeyReader>,
}

impl Cancellable {
    pub(super) fn new(sessions: &Sessions, endpoint: &Arc<Endpoint>, cancellation: &Cancellation) -> Self {
        let sessions = sessions.clone();
        let endpoint = Arc::clone(endpoint);
        Self { sessions, endpoint, key: OnceLock::new(), announced: cancellation.announced }
    }

    /// Reads what the server says before the client does; false once it has seen enough.
    pub(crate) fn reader(&self) -> FirstBytes<'_> {
        let mut reader = (self.announced)();
        Box::new(move |bytes| match reader.read(bytes) {
            Reading::More => true,
            Reading::Without => false,
            Reading::Key(key) => {
                self.remember(key);
                false
            }
        })
    }

    fn remember(&self, key: Box<[u8]>) {
        self.sessions.lock().insert(key.clone(), Arc::clone(&self.endpoint));
        let _ = self.key.set(key);
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        let Some(key) = self.key.get() else { return };
        let mut sessions = self.sessions.lock();
        // Another server may have given the same key since.
        if sessions.get(key).is_some_and(|endpoint| Arc::ptr_eq(endpoint, &self.endpoint)) {
            sessions.remove(key);
        }
    }
}
