//! The layer as its users see it: through its public interface alone.

mod device;
mod env;
mod oracle;
mod order;
mod random;
mod rng;
mod world;
