//! A user's session: the token of the latest answer, and which operation's answer that was.
//!
//! Users do not wait for their own earlier operations, so two operations of a session may carry the same token and
//! the later answer replaces the other's. What an operation was promised is therefore what its chain of tokens has
//! seen, and the ledger keeps that chain ([`crate::ledger::Entry::parent`]).

use std::sync::{Mutex, PoisonError};

/// One session.
#[derive(Debug, Default)]
pub(super) struct Session(Mutex<Option<Carried>>);

/// A token and whose answer it came with.
#[derive(Debug, Clone)]
pub(super) struct Carried {
    pub(super) token: String,
    pub(super) from: u32,
}

impl Session {
    pub(super) fn carried(&self) -> Option<Carried> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn answered(&self, from: u32, token: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Carried { token, from });
    }

    /// Starts anew, if the session still carries what was refused.
    pub(super) fn refused(&self, token: &str) {
        let mut carried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if carried.as_ref().is_some_and(|carried| carried.token == token) {
            *carried = None;
        }
    }
}
