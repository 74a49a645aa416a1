//! Whatever clients over real sockets: those who keep to the form of the protocol are answered as
//! its text wants it and find what they wrote, whatever others send beside them.

mod draw;
mod model;
mod served;
mod tame;

use std::sync::{Mutex, PoisonError};

use blkmq_fuzz::Target;

use served::Served;

/// The server, from one input to the next. A new one is started after a failure.
static SERVED: Mutex<Option<Served>> = Mutex::new(None);

/// What the clients do.
#[derive(Debug)]
pub(super) enum Step {
    /// Enters the modelled volume, with structured replies or with simple ones.
    Enter { slot: usize, structured: bool },
    /// Sends a request, in as many pieces.
    Ask { slot: usize, request: Wanted, pieces: usize },
    /// Reads all replies.
    Hear { slot: usize },
    /// Ends the connection.
    End { slot: usize, how: How },
    /// Sends whatever to the volume that is not modelled, over the same connection as before.
    Shout { bytes: Vec<u8> },
    /// Hangs up there.
    Silence,
}

/// A request of the right form, which may break a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// With a leave, after which everything is answered.
    Leave,
    /// At once.
    HangUp,
    /// At once, in the middle of a write.
    HangUpWithin,
    /// With what is no request.
    Nonsense,
}

#[test]
fn whatever_clients_come_over_sockets() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/socket");
    Target { folder, cases: 300, len_max: 400 }.run(|bytes| {
        let script = draw::script(bytes);
        if blkmq_fuzz::is_repeated() {
            println!("{script:#?}");
        }
        let kept = SERVED.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut served = kept.unwrap_or_else(Served::start);
        served.play(&script);
        *SERVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(served);
    });
    if let Some(served) = SERVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        served.stop();
    }
}
