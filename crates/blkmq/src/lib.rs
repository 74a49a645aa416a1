//! Linux's multi-queue block layer, in a program of your own.
//!
//! An engine has disks (a file or block device by io_uring, or memory), a scheduler for each, and
//! volumes on them. Many threads and tasks read and write; the scheduler decides the order. So a
//! storage engine's foreground reads go ahead of its compaction:
//!
//! ```
//! use blkmq::{Buffer, Builder, Class, DiskOptions, FileOptions, Scheduler, VolumeOptions};
//! # fn main() -> Result<(), blkmq::Error> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("main.img");
//! let mut builder = Builder::new().workers(2);
//! let file = FileOptions { size_bytes: Some(64 << 20), ..FileOptions::new(path) };
//! let options = DiskOptions::new().scheduler(Scheduler::MqDeadline).queue_depth(32);
//! let disk = builder.file_disk(&file, options)?;
//! builder.volume("gold", disk, VolumeOptions::new())?;
//! let engine = builder.start()?;
//!
//! let gold = engine.volume("gold")?; // cheap to clone, usable from any thread
//! # pollster::block_on(async {
//! let table = Buffer::from([7; 8192].as_slice());
//! let compaction = gold.write(1 << 20, table).priority(Class::Idle, 0).submit();
//! let (read, page) = gold.read(0, Buffer::zeroed(4096)).await; // does not wait for the write
//! read?;
//! assert_eq!(*page, [0; 4096]);
//! let (written, _table) = compaction.await;
//! written?;
//! gold.flush().await?; // now the write outlasts a crash
//! # Ok::<(), blkmq::Error>(())
//! # })?;
//! engine.shutdown(std::time::Duration::from_secs(10))
//! # }
//! ```
//!
//! # Owned memory
//!
//! The device reads and writes memory while the program goes on, so an I/O owns its memory: it goes
//! in with the request, and comes back with the answer, `(result, memory)`. A `Vec<u8>` or a
//! `Box<[u8]>` will do; a [`Buffer`] begins at a page, which spares direct I/O a copy. The traits
//! [`IoBuf`] and [`IoBufMut`] are for memory of other kinds.
//!
//! ```
//! # use blkmq::{Builder, DiskOptions, VolumeOptions};
//! # let mut builder = Builder::new();
//! # let disk = builder.memory_disk(1 << 20, DiskOptions::new())?;
//! # builder.volume("log", disk, VolumeOptions::new())?;
//! # let engine = builder.start()?;
//! # let log = engine.volume("log")?;
//! // Several pieces of memory, one I/O, durable when it ends. `wait` blocks the thread.
//! let (header, body) = (vec![1; 512], vec![2; 1536]);
//! let (result, _pieces) = log.write_vectored(4096, vec![header, body]).fua().wait();
//! result?;
//! let (result, bytes) = log.read(4096, vec![0; 1024]).wait();
//! result?;
//! assert_eq!((bytes[511], bytes[512]), (1, 2));
//!
//! log.discard(4096, 2048).wait()?;
//! log.write_zeroes(4096, 2048).wait()?;
//! # Ok::<(), blkmq::Error>(())
//! ```
//!
//! # Futures and threads
//!
//! A [`Request`] says how; `.await`, [`Request::submit`] or [`Request::wait`] begin it. The future,
//! [`Io`], needs nothing but a waker, so any executor will do, and it may be dropped at any time:
//! what the device has is finished, and its memory freed then.
//!
//! Wakers are called, and the memory of dropped futures is freed, by the engine's threads, which
//! serve everybody: they should neither block nor panic there. A panic on a worker ends the
//! process, because its I/O would never end.
//!
//! # Bounds
//!
//! A volume has a limited number of I/Os with the layer at a time,
//! [`in_flight_max`](VolumeOptions::in_flight_max). Those beyond it wait their turn, asynchronously
//! or blocking as they were begun, the higher classes first. How many wait is up to the program:
//! each costs its memory and one small allocation.
//!
//! An I/O may be as long, and its memory in as many pieces, as one likes: what the device does not
//! take at once is split, and ends as one.
//!
//! # Sharing a disk
//!
//! Volumes share their disk's requests by [`weight`](VolumeOptions::weight), as long as several of
//! them want more than there is, and [`limits`](VolumeOptions::limits) hold a volume to so many
//! I/Os or bytes a second. Both, and with [`Engine::disk`] the scheduler and its attributes, can be
//! changed while I/O is under way. [`Volume::figures`] says what has been done.
//!
//! ```
//! # use std::time::Duration;
//! # use blkmq::{Builder, DiskOptions, Rate, Rates, VolumeOptions};
//! # let mut builder = Builder::new();
//! # let disk = builder.memory_disk(1 << 20, DiskOptions::new())?;
//! let slowly = Some(Rate { per_second: 10 << 20, burst: Duration::from_millis(50) });
//! let limits = Rates { bps: slowly, ..Rates::default() };
//! builder.volume("backup", disk, VolumeOptions::new().weight(10).limits(limits))?;
//! let engine = builder.start()?;
//! let backup = engine.volume("backup")?;
//! backup.write(0, vec![1; 4096]).wait().0?;
//! assert_eq!(backup.figures()?.kinds.iter().map(|kind| kind.ios).sum::<u64>(), 1);
//! backup.set_limits(&Rates::default())?; // the night has come
//! # Ok::<(), blkmq::Error>(())
//! ```
//!
//! # The end
//!
//! [`Engine::shutdown`] finishes what has gone to the layer, flushes, and ends the threads; a
//! dropped engine does the same without telling. Volumes do not keep an engine alive.

#![deny(missing_docs)]

mod buffer;
mod builder;
mod disk;
mod engine;
mod error;
mod flight;
mod gate;
pub mod kind;
mod memory;
mod options;
mod request;
mod volume;

pub use blkmq_core::{
    Class, DeadlineConfig, Figures, Hold, Kind as FigureKind, KindFigures, Rate, Rates, Status,
    Times,
};
pub use blkmq_drivers::{FileOptions, OpenError};
pub use blkmq_runtime::{ControlError, StopError};

pub use buffer::Buffer;
pub use builder::{Builder, DiskId};
pub use disk::Disk;
pub use engine::Engine;
pub use error::Error;
pub use flight::Io;
pub use memory::{IoBuf, IoBufMut};
pub use options::{DiskOptions, Scheduler, VolumeOptions};
pub use request::Request;
pub use volume::Volume;
