//! The layer as its users see it: through its public interface alone.

mod busy;
mod deadline;
mod deadline_merge;
mod deadline_model;
mod device;
mod dispatch;
mod entry;
#[path = "../support/env.rs"]
mod env;
mod fifo;
mod meanwhile;
mod merged;
mod oracle;
mod order;
mod quarry;
mod random;
mod reference;
mod rng;
mod scheduler;
mod threads;
mod world;
