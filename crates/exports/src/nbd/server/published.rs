//! What clients can ask for, as it is at the moment.

use std::sync::{Arc, PoisonError, RwLock};

use crate::nbd::{ExportError, Exports};

/// The exports of a running server. Clones share it.
///
/// A connection takes the list when it comes, and keeps it: a size does not change under a client.
#[derive(Clone, Debug)]
pub struct Published {
    current: Arc<RwLock<Arc<Exports>>>,
}

impl Published {
    /// These exports, until one changes.
    pub fn new(exports: Arc<Exports>) -> Self {
        Published { current: Arc::new(RwLock::new(exports)) }
    }

    /// What a client who comes now can ask for.
    pub fn current(&self) -> Arc<Exports> {
        // What is kept is exchanged as a whole.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives one of the exports another size, for clients who come from now on.
    ///
    /// # Errors
    ///
    /// Those of [`Exports::resized`]; nothing is changed then.
    ///
    /// # Panics
    ///
    /// If there is no such export.
    pub fn resize(&self, index: usize, size_bytes: u64) -> Result<(), ExportError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(current.resized(index, size_bytes)?);
        Ok(())
    }
}
