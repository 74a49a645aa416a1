//! How volumes are served: NBD.

pub mod nbd;
