//! Tests of the tags of several users together. Those against a model, which need no more than
//! what is public, are in `tests/tags`.

mod set;
mod threads;
