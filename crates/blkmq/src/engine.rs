//! The running engine, and its end.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::builder::DiskId;
use crate::disk::{Control, Disk};
use crate::error::Error;
use crate::flight::is_worker;
use crate::volume::Volume;

/// A running engine: its worker threads, its disks and their volumes.
///
/// It ends with [`shutdown`](Engine::shutdown). One that is dropped does the same as well as it
/// can: it waits for at most its [`stop_timeout`](crate::Builder::stop_timeout), and tells nobody
/// of failures.
pub struct Engine {
    controls: Vec<Control>,
    volumes: Vec<Volume>,
    /// `None` once it has been stopped. Behind a lock, for which nobody waits, so that an engine
    /// can be shared.
    running: Mutex<Option<blkmq_runtime::Engine>>,
    stop_timeout: Duration,
}

impl Engine {
    pub(crate) fn new(
        running: blkmq_runtime::Engine,
        controls: Vec<Control>,
        volumes: Vec<Volume>,
        stop_timeout: Duration,
    ) -> Self {
        Engine { controls, volumes, running: Mutex::new(Some(running)), stop_timeout }
    }

    /// The volume of this name.
    ///
    /// # Errors
    ///
    /// [`Error::NoVolume`] if there is none.
    pub fn volume(&self, name: &str) -> Result<Volume, Error> {
        let found = self.volumes.iter().find(|volume| volume.name() == name);
        found.cloned().ok_or_else(|| {
            let known: Vec<&str> = self.volumes.iter().map(Volume::name).collect();
            Error::NoVolume { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// A disk, to be looked at and changed while it runs.
    ///
    /// # Panics
    ///
    /// If it is none of this engine's.
    pub fn disk(&self, disk: DiskId) -> Disk {
        Disk::new(self.controls[disk.0].clone())
    }

    /// All volumes, in the order in which they were added.
    pub fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    /// Ends the engine: I/O that has gone to the layer is finished, the disks are flushed and
    /// closed, and the threads end. I/O that waits its turn, and all that begins later, ends in
    /// [`Error::Closed`].
    ///
    /// Blocks the calling thread; within an executor, call it where blocking is allowed. If
    /// `timeout` passes first, the disks stay open: their threads go on waiting for what is in
    /// flight, because the devices have its memory.
    ///
    /// # Errors
    ///
    /// [`Error::Stop`], if the time did not suffice or a disk failed to flush.
    pub fn shutdown(mut self, timeout: Duration) -> Result<(), Error> {
        self.stop(timeout)
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), Error> {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return Ok(()) };
        self.volumes.iter().for_each(|volume| volume.address.gate.close());
        if !is_worker() {
            return Ok(running.stop(timeout)?);
        }
        // A stranger's waker, or the drop of a stranger's memory, ended the engine on one of its
        // own threads. That thread has work to do before it can end, so another waits for it.
        thread::Builder::new()
            .name("blkmq-stop".to_owned())
            .spawn(move || running.stop(timeout))
            .map_err(Error::Start)?;
        Err(Error::stop_timeout(Duration::ZERO))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // There is nobody to tell. Who wants to know calls `shutdown`.
        let _ = self.stop(self.stop_timeout);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("volumes", &self.volumes).finish_non_exhaustive()
    }
}
