//! The multi-queue block layer: Linux's blk-mq, in user space.
//!
//! A [`Queue`] takes block I/O from many submitters, lets a scheduler decide the order, holds it to
//! tags and to the device's budget, hands it to a [`Driver`], and never strands a request: a kick
//! that is owed is given.
//!
//! The layer does no I/O, starts no thread and reads no clock. A thread takes [turns](Turn) at the
//! queue; it brings the time along, and what the layer wishes for (a run elsewhere, a run later)
//! goes out through an [`Env`]. So the same code serves real devices, runs in virtual time, and is
//! explored under every interleaving.

mod admission;
mod admit;
mod bio;
mod bitmap;
mod budget;
mod change;
mod combiner;
mod complete;
mod control;
mod cpu;
mod dispatch;
mod driver;
mod dump;
mod elevator;
mod enter;
mod flush;
mod hardware;
mod hold;
mod ids;
mod inbox;
mod lane;
mod limits;
mod live;
mod lost;
mod merge;
mod queue;
mod request;
mod schedule;
mod software;
mod split;
mod stats;
mod status;
mod sync;
mod tags;
mod time;
mod timeout;
mod turn;

pub use admission::{GroupId, Rate, Rates, TenantConfig};
pub use bio::{
    Bio, BufferIndex, Class, Flags, Op, Priority, SECTOR_SHIFT, SECTOR_SIZE_BYTES, Segment,
    Segments, TenantId, VolumeId,
};
pub use budget::{BUDGET_DELAY, BudgetMode};
pub use change::{Change, Changing};
pub use cpu::{Counters, Cpu};
pub use driver::{Driver, Env, Expired, QueueRq, Restarter, TimeoutAnswer, Wish};
pub use dump::{
    BudgetDump, Dump, FlushDump, HardwareDump, Overdue, RequestDump, SoftwareDump, TenantDump,
};
pub use elevator::{
    Added, AttributeError, Completion, Deadline, DeadlineConfig, Dispatch, Merge, Run, Scheduler,
};
pub use enter::Refused;
pub use ids::{CtxId, HctxId};
pub use inbox::{Inbox, WakeUp};
pub use limits::Limits;
pub use live::{HctxType, Maps};
pub use merge::Side;
pub use queue::{Config, Held, Queue};
pub use request::{Abandoned, Done, InFlight, Memory, Request, SchedulerData};
pub use stats::{Figures, Hold, Kind, KindFigures, Times};
pub use status::Status;
pub use sync::Omission;
pub use tags::{
    DriverTags, Sbitmap, Tag, TagKick, TagKind, TagRun, TagSet, TagSetFull, TagUser, TagWaits,
};
pub use time::Time;
pub use turn::Turn;
