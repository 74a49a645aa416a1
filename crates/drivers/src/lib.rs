//! Devices under the layer: [`Null`], [`Memory`], [`File`] and [`Model`].
//!
//! Each implements [`blkmq_core::Driver`], which is what the layer needs, and [`Device`], which is
//! what a runtime needs beyond it: a ring for each worker thread, a descriptor to sleep on, the
//! device's size and the map of what it holds.

mod device;
pub mod file;
mod memory;
mod model;
mod null;

pub use device::{
    Area, BlockSizes, Device, Extent, ExtentKind, Kick, LOGICAL_BLOCK_MAX_BYTES, connect_kicks,
};
pub use file::{File, FileOptions, OpenError};
pub use memory::{Memory, MemoryRing};
pub use model::{Model, ModelCache, ModelOptions, ModelRing};
pub use null::{Null, NullRing};
