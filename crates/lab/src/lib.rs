//! The lab: the layer's own code under every interleaving, within bounds.
//!
//! A [`Scenario`] runs the layer, compiled with an explorer's primitives, and looks at the result
//! with its oracles. [`check()`] has it explored (see [`explorer`]) and says for each exploration
//! whether it was exhaustive and within which bound. What is found is shown as a [`Table`], with a
//! lane a thread.

pub mod check;
mod child;
pub mod explorer;
pub mod finding;
pub mod flavour;
pub mod outcome;
pub mod progress;
mod scenario;
pub mod table;
pub mod trace;

pub use check::{
    CheckError, Event, Expect, Options, Params, Plan, Scenario, Selection, check, list,
};
pub use child::main_if_child;
pub use explorer::Explorer;
pub use finding::{Finding, Kind, Step};
pub use outcome::{Listed, Outcome};
pub use scenario::SCENARIOS;
pub use table::Table;
