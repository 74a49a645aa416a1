//! Devices under the layer: [`Null`], [`Memory`] and [`File`].
//!
//! Each implements [`blkmq_core::Driver`], which is what the layer needs, and [`Device`], which is
//! what a runtime needs beyond it: a ring for each worker thread, a descriptor to sleep on, the
//! device's size and the map of what it holds.

mod device;
pub mod file;
mod memory;
mod null;

pub use device::{Area, BlockSizes, Device, Extent, ExtentKind, LOGICAL_BLOCK_MAX_BYTES};
pub use file::{File, FileOptions, OpenError};
pub use memory::{Memory, MemoryRing};
pub use null::{Null, NullRing};
