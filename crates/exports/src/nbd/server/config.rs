//! What all connections of a server share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use blkmq_core::SECTOR_SIZE_BYTES;
use blkmq_runtime::{BUFFER_MAX_BYTES, VolumeId};

use super::published::Published;
use super::tls::Tls;
use crate::nbd::Exports;

/// What all connections of a server share. Unchanging, but for what is published.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What clients can ask for. No smallest block may be under 512 bytes, and no largest payload
    /// over [`BUFFER_MAX_BYTES`] or what the engine's memory suffices for.
    pub exports: Published,
    /// The volume behind each of the exports, in their order.
    pub volumes: Vec<VolumeId>,
    /// How long a handshake may take, and a request from its first byte to its last. A client may
    /// pause for ever between requests.
    pub handshake_timeout: Duration,
    /// How long a client may take none of its replies, or send a payload by less than a megabyte a
    /// second, while others wait for memory.
    pub stuck_timeout: Duration,
    /// The most memory that one connection's requests and unsent replies may hold together, in
    /// bytes. A single request may exceed it. A client that does not read its replies keeps this
    /// much from the others.
    pub quota_bytes: u64,
    /// How much of that is promised to each connection, in bytes, whatever the others hold; the
    /// engine has to have been told so ([`blkmq_runtime::Builder::promise`]).
    pub own_bytes: usize,
    /// How many clients there may be.
    pub places: Places,
    /// Whether they may, or must, encrypt their connections.
    pub tls: Tls,
    /// What all connections keep of what they have read.
    pub kept: KeptBytes,
}

/// How much all connections keep together of what they have read and found no room for. Clones
/// count together.
#[derive(Clone, Debug, Default)]
pub struct KeptBytes(Arc<AtomicUsize>);

/// How many clients a server takes, over all its listeners and their successors: clones count
/// together.
#[derive(Clone, Debug)]
pub struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: usize,
    taken: AtomicUsize,
    /// When it was logged last that all are taken.
    told_at: Mutex<Option<Instant>>,
}

/// How often it is logged at most that clients are turned away: they could have a log filled.
const TOLD_PAUSE: Duration = Duration::from_secs(60);

/// How much connections keep together before each of them reads less at a time.
const KEPT_MAX_BYTES: usize = 8 << 20;

/// One client's place.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
}

impl ServerConfig {
    /// What is customary: 10 seconds for a handshake, one for who keeps memory from others, 64 MiB
    /// a connection, no TLS.
    pub fn new(exports: Arc<Exports>, volumes: Vec<VolumeId>, places: Places) -> Self {
        ServerConfig {
            exports: Published::new(exports),
            volumes,
            handshake_timeout: Duration::from_secs(10),
            stuck_timeout: Duration::from_secs(1),
            quota_bytes: 64 << 20,
            own_bytes: 0,
            places,
            tls: Tls::Off,
            kept: KeptBytes::default(),
        }
    }

    /// Holds the parts to each other.
    pub(super) fn assert_sound(&self) {
        let exports = self.exports.current();
        let exports = exports.list();
        assert_eq!(exports.len(), self.volumes.len(), "every export has its volume");
        for export in exports {
            let (name, block) = (&export.name, &export.block);
            assert!(
                u64::from(block.min_bytes) >= SECTOR_SIZE_BYTES,
                "export {name:?} is addressed in sectors at least"
            );
            assert!(
                block.max_payload_bytes as usize <= BUFFER_MAX_BYTES,
                "a payload of export {name:?} fits in a buffer"
            );
        }
    }
}

impl Places {
    /// Places for `max` clients.
    pub fn new(max: usize) -> Self {
        let taken = AtomicUsize::new(0);
        Places { shared: Arc::new(Shared { max, taken, told_at: Mutex::new(None) }) }
    }

    /// How many clients there may be at once.
    pub fn max(&self) -> usize {
        self.shared.max
    }

    /// How many clients there are.
    pub fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// A place, if one is free.
    pub(super) fn take(&self) -> Option<Place> {
        let more = |taken| (taken < self.shared.max).then_some(taken + 1);
        // Only the count itself is shared, so no order with other memory is needed.
        self.shared.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { shared: Arc::clone(&self.shared) })
    }

    /// Whether it is time to say that all are taken.
    pub(super) fn is_news(&self) -> bool {
        // A time is never half changed.
        let mut told_at = self.shared.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told_at.is_none_or(|at| at.elapsed() >= TOLD_PAUSE);
        if is_news {
            *told_at = Some(Instant::now());
        }
        is_news
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl KeptBytes {
    /// Whether there is so much that nobody should come to keep more than he must.
    pub(super) fn is_much(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= KEPT_MAX_BYTES
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_over_all_clones() {
        let places = Places::new(2);
        let first = places.take().unwrap();
        let _second = places.clone().take().unwrap();
        assert!(places.take().is_none());
        assert_eq!(places.taken(), 2);
        assert!(places.is_news());
        assert!(!places.clone().is_news(), "it is told once");
        drop(first);
        assert_eq!(places.taken(), 1);
        assert!(places.take().is_some());
        assert!(!places.is_news(), "it is not told again so soon");
    }
}
