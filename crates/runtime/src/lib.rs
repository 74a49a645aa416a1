//! The runtime: the real clock, timers and worker threads, what kblockd is to the kernel.
//!
//! An [`Engine`] has some workers. Each owns a side of every disk, memory, and the clients that
//! were given to it (a [`Service`] each), and serves them in rounds: it gathers what has come,
//! submits it in one turn a disk, hands out what has ended, and sends all replies. It sleeps on
//! everything at once when there is nothing to do.

mod buffer;
mod clock;
mod control;
mod cx;
mod engine;
mod mailbox;
mod mapping;
mod poller;
mod port;
mod ranges;
mod remote;
mod service;
mod timers;
mod unaligned;
mod volume;
mod worker;

pub use blkmq_drivers::{Extent, ExtentKind};
pub use buffer::{BUFFER_MAX_BYTES, Buffer, BufferPool, PAGE_BYTES, PoolSize, held_bytes};
pub use clock::Clock;
pub use control::{ControlError, DiskControl};
pub use cx::Cx;
pub use engine::{Builder, DiskConfig, Engine, SERVICES_MAX, StopError, WORKERS_MAX};
pub use remote::{Caller, Closed, Handle, RemoteIo};
pub use service::{Interest, Io, IoDone, Service};
pub use volume::{DiskId, Volume, VolumeId, VolumeSizes};
