//! The devices, driven through a real queue as a runtime drives them.

mod block_device;
mod folder;
mod in_file;
mod in_memory;
mod late;
mod model;
mod modelled;
mod opening;
mod pages;
mod rig;
mod rings;
