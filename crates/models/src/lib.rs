//! Devices as state machines over time.
//!
//! A machine is told what begins and what time it is, and says what is over. It reads no clock,
//! starts no thread and does no I/O, so the same machine runs under the real clock, in virtual time
//! and under an explorer. All chance in it comes from a seed.
//!
//! [`Slots`] says when requests end, and how; [`VolatileDisk`] says what is left of their data
//! after a crash.

mod faults;
mod random;
mod request;
mod slots;
mod volatile;

pub use faults::{BusyFault, Effect, Fault, Faults, Trigger};
pub use random::Random;
pub use request::{BusyKind, ModelOp, ModelRequest, Outcome, SECTOR_BYTES, Start};
pub use slots::{Fate, Slots, SlotsConfig};
pub use volatile::{FlushMark, Sabotage, VolatileDisk};
