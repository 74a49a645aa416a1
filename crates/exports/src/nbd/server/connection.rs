//! One client, from its greeting to its leave.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use blkmq_core::Time;
use blkmq_runtime::{Cx, Interest, IoDone, Service};
use rustix::net::{Shutdown, shutdown};
use tracing::{debug, info};

use super::config::{KeptBytes, Place, ServerConfig};
use super::outbox::Outbox;
use super::requests::{Flow, Requests};
use super::timer::Timer;
use super::transport::{Failure, Received, Transport};
use crate::nbd::{Closed, Exports, Handshake, Outcome};

/// How long a client may take to notice that the server has ended the connection: to close it over
/// TCP, where closing first could destroy the last replies, or to end its handshake when the server
/// stops.
const PARTING: Duration = Duration::from_secs(1);

/// How much is read at a time while connections keep much of what they have read, in bytes.
const WINDOW_MIN_BYTES: usize = 4 << 10;

/// A client.
pub(super) struct Connection {
    transport: Transport,
    peer: Peer,
    config: Arc<ServerConfig>,
    /// What the client can ask for, as it was when it came.
    exports: Arc<Exports>,
    stage: Stage,
    end: End,
    outbox: Outbox,
    /// What was read from the socket but found no room.
    kept: Kept,
    /// Nothing more is read until there is room again.
    is_stalled: bool,
    /// Since when the client has taken nothing of what is there for it.
    stuck_since: Option<Time>,
    timer: Timer,
    has_begun: bool,
    /// Given back when the client is gone for good.
    _place: Place,
}

/// Who a client is, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// Over a unix socket: the how manieth there.
    Unix(u64),
    /// Over TCP.
    Tcp(Option<SocketAddr>),
}

/// How far a client has come.
enum Stage {
    Handshake {
        handshake: Handshake,
        /// TLS follows, once the client has been told so.
        tls_is_due: bool,
    },
    Transmission(Box<Requests>),
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has not begun.
    No,
    /// Nothing more is taken in; what was accepted is finished and answered.
    Leaving,
    /// All was said, and the client is to close.
    Parting,
    /// The client is gone; what is in flight for it is awaited.
    Gone,
}

/// Input that found no room.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    at: usize,
    /// Where `bytes` are counted; absent if there are none.
    counted: Option<KeptBytes>,
}

impl Connection {
    /// A client that has just come. The socket does not block.
    pub(super) fn new(
        socket: OwnedFd,
        peer: Peer,
        config: Arc<ServerConfig>,
        place: Place,
    ) -> Self {
        let mut greeting = Vec::new();
        let exports = config.exports.current();
        let tls = config.tls.policy();
        let handshake = Handshake::with_tls(Arc::clone(&exports), tls, &mut greeting);
        let mut outbox = Outbox::default();
        outbox.push_bytes(&greeting);
        debug!(%peer, "client connected");
        Connection {
            transport: Transport::plain(socket),
            peer,
            config,
            exports,
            stage: Stage::Handshake { handshake, tls_is_due: false },
            end: End::No,
            outbox,
            kept: Kept::default(),
            is_stalled: false,
            stuck_since: None,
            timer: Timer::default(),
            has_begun: false,
            _place: place,
        }
    }
}

impl Service for Connection {
    fn fd(&self) -> BorrowedFd<'_> {
        self.transport.socket()
    }

    fn interest(&self) -> Interest {
        let readable = match self.end {
            End::No => !self.is_stalled,
            End::Leaving | End::Gone => false,
            End::Parting => true,
        };
        let writable = !self.outbox.is_empty() || self.transport.wants_write();
        // Else a client that has gone would keep its place among those who wait for memory.
        let hang_up = self.is_hungry() && !writable && self.in_flight() == 0;
        Interest { readable, writable: self.end != End::Gone && writable, hang_up }
    }

    fn ready(&mut self, cx: &mut Cx<'_>, ready: Interest) {
        // A hang-up counts as readable even while nothing is to be read. It is found out later.
        let interest = self.interest();
        if ready.readable && interest.readable {
            self.receive(cx);
        } else if ready.hang_up && interest.hang_up {
            self.hung_up();
        }
    }

    fn done(&mut self, cx: &mut Cx<'_>, done: IoDone) {
        let Stage::Transmission(requests) = &mut self.stage else {
            unreachable!("nothing is submitted before the transmission");
        };
        let outbox = (self.end != End::Gone).then_some(&mut self.outbox);
        requests.end(cx, done, outbox);
    }

    fn flush(&mut self, cx: &mut Cx<'_>) {
        if !self.has_begun {
            self.has_begun = true;
            self.timer.start(cx, cx.now() + self.config.handshake_timeout);
        }
        self.send(cx);
        // What is sent makes room, which nobody else would tell of. It is used up in the next
        // round, so that others have their turn.
        if self.is_stalled && self.resume(cx) {
            cx.again();
        }
        if !self.is_stalled && self.in_flight() == 0 {
            // A client that rests keeps no memory.
            self.kept = Kept::default();
        }
        self.part(cx);
    }

    fn retry(&mut self, cx: &mut Cx<'_>) {
        if self.is_stalled {
            self.resume(cx);
        }
    }

    fn is_hungry(&self) -> bool {
        self.end == End::No && self.is_stalled
    }

    fn squeeze(&mut self, cx: &mut Cx<'_>) {
        let patience = self.config.stuck_timeout;
        let now = cx.now();
        let is_dawdling = match &self.stage {
            Stage::Transmission(requests) => requests.is_dawdling(now, patience),
            _ => false,
        };
        let what = if is_dawdling {
            "client sends a payload too slowly while others wait for memory"
        } else if self.stuck_since.is_some_and(|since| now.since(since) >= patience) {
            "client takes no replies while others wait for memory"
        } else {
            return;
        };
        info!(peer = %self.peer, ?patience, "{what}");
        self.go();
    }

    fn deadline(&mut self, cx: &mut Cx<'_>) {
        if !self.timer.fired(cx) || self.end == End::Gone {
            return;
        }
        if self.end == End::No {
            let timeout = self.config.handshake_timeout;
            let what = match self.stage {
                Stage::Handshake { .. } => "the handshake did not end in time",
                Stage::Transmission(_) => "a request did not arrive in time",
            };
            info!(peer = %self.peer, ?timeout, "{what}");
        }
        self.go();
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        if self.end != End::No {
            return;
        }
        match &mut self.stage {
            Stage::Handshake { handshake, .. } => {
                handshake.stop();
                self.timer.hasten(cx, cx.now() + PARTING);
            }
            Stage::Transmission(_) => self.leave(),
        }
    }

    fn is_finished(&self) -> bool {
        self.end == End::Gone && self.in_flight() == 0
    }
}

impl Connection {
    fn in_flight(&self) -> usize {
        match &self.stage {
            Stage::Handshake { .. } => 0,
            Stage::Transmission(requests) => requests.in_flight(),
        }
    }

    /// Reads once, and takes what came.
    fn receive(&mut self, cx: &mut Cx<'_>) {
        let mut scratch = cx.scratch();
        // What finds no room is kept, and all connections together must not keep too much.
        let is_much = self.config.kept.is_much();
        let most = if is_much { WINDOW_MIN_BYTES } else { scratch.len() };
        let received = self.read(&mut scratch, most);
        self.came(cx, &scratch, received);
        cx.put_scratch(scratch);
    }

    /// Reads a plain payload's rest to where it belongs, and up to `most` of all else into the
    /// front of `scratch`, where so much is then.
    fn read(&mut self, scratch: &mut [u8], most: usize) -> Result<Received, Failure> {
        let rest = match &mut self.stage {
            Stage::Transmission(requests) if self.transport.is_plain() => requests.payload_rest(),
            _ => return self.transport.receive(scratch, most),
        };
        // A long payload takes several rounds, so that others have their turn.
        let (payload_len, beyond) = match rest.len() {
            len if len > scratch.len() => (scratch.len(), &mut [][..]),
            len => (len, &mut scratch[..most]),
        };
        let Received { len, is_end } =
            self.transport.receive_plain(&mut rest[..payload_len], beyond)?;
        if let Stage::Transmission(requests) = &mut self.stage {
            requests.payload_came(len.min(payload_len));
        }
        Ok(Received { len: len.saturating_sub(payload_len), is_end })
    }

    /// Takes what was read into the front of `scratch`.
    fn came(&mut self, cx: &mut Cx<'_>, scratch: &[u8], received: Result<Received, Failure>) {
        match received {
            Ok(Received { len, is_end }) => {
                // Whoever is asked to close may have sent more before. It was not accepted.
                if self.end == End::No {
                    let left = self.take(cx, &scratch[..len]);
                    self.kept.keep(&scratch[len - left..len], &self.config.kept);
                }
                if is_end && self.end != End::Leaving {
                    self.hung_up();
                }
            }
            Err(failure) => self.failed(&failure),
        }
    }

    /// Begins TLS, if the client knows of it by now. Whether that has led anywhere.
    fn start_tls(&mut self, cx: &mut Cx<'_>) -> bool {
        if !self.outbox.is_empty() {
            return false;
        }
        let identity = self.config.tls.identity().expect("it is offered with an identity only");
        let kept = std::mem::take(&mut self.kept);
        let mut scratch = cx.scratch();
        let received = self.transport.start_tls(identity, &kept.bytes[kept.at..], &mut scratch);
        if let Stage::Handshake { tls_is_due, .. } = &mut self.stage {
            *tls_is_due = false;
        }
        self.is_stalled = false;
        self.came(cx, &scratch, received);
        cx.put_scratch(scratch);
        true
    }

    /// Tries again what found no room. Whether that has led anywhere.
    fn resume(&mut self, cx: &mut Cx<'_>) -> bool {
        if matches!(self.stage, Stage::Handshake { tls_is_due: true, .. }) {
            return self.start_tls(cx);
        }
        // Taken out, so that it can be read while the connection changes.
        let mut kept = std::mem::take(&mut self.kept);
        let before = kept.bytes.len() - kept.at;
        let left = self.take(cx, &kept.bytes[kept.at..]);
        kept.at = kept.bytes.len() - left;
        if left == 0 {
            kept.clear();
        }
        if self.end == End::No {
            self.kept = kept;
        }
        left < before
    }

    /// Takes what it can of `input`. How much is left.
    fn take(&mut self, cx: &mut Cx<'_>, mut input: &[u8]) -> usize {
        if let Stage::Handshake { .. } = &self.stage {
            self.shake_hands(&mut input);
        }
        if self.end == End::No
            && let Stage::Transmission(requests) = &mut self.stage
        {
            let flow = requests.take(cx, &mut input, &mut self.outbox);
            self.is_stalled = matches!(flow, Flow::Stalled | Flow::Enough);
            match flow {
                Flow::Enough => {
                    cx.again();
                    self.watch(cx);
                }
                Flow::Hungry | Flow::Stalled => self.watch(cx),
                Flow::Leave => self.leave(),
                Flow::Broken(violation) => {
                    info!(peer = %self.peer, %violation, "client broke the protocol");
                    self.go();
                }
            }
        }
        if self.end == End::No { input.len() } else { 0 }
    }

    /// Handshakes until an answer has to be sent first, or requests follow.
    fn shake_hands(&mut self, input: &mut &[u8]) {
        let Stage::Handshake { handshake, tls_is_due } = &mut self.stage else { return };
        self.is_stalled = !self.outbox.is_empty();
        if self.is_stalled {
            return;
        }
        let mut answer = Vec::new();
        let outcome = handshake.receive(input, &mut answer);
        if !answer.is_empty() {
            self.outbox.push_bytes(&answer);
            // The rest waits until the answer is sent.
            self.is_stalled = true;
        }
        match outcome {
            None => {}
            Some(Outcome::StartTls) => *tls_is_due = true,
            Some(Outcome::Transmission(session)) => {
                let index = session.export_index();
                let export = &self.exports.list()[index];
                debug!(peer = %self.peer, export = export.name, "client entered an export");
                self.timer.clear();
                self.stage = Stage::Transmission(Box::new(Requests::new(
                    session,
                    export.block.min_bytes,
                    self.config.volumes[index],
                    &self.config,
                )));
            }
            Some(Outcome::Closed(closed)) => {
                match closed {
                    Closed::Aborted => debug!(peer = %self.peer, "client ended the handshake"),
                    Closed::UnknownExport(_) | Closed::TlsRequired | Closed::Stopping => {
                        info!(peer = %self.peer, reason = %closed, "handshake failed");
                    }
                    _ => info!(peer = %self.peer, reason = %closed, "client broke the protocol"),
                }
                self.leave();
            }
        }
    }

    /// Watches the time while a request arrives in pieces, unless it is us who keep it waiting.
    fn watch(&mut self, cx: &mut Cx<'_>) {
        let Stage::Transmission(requests) = &mut self.stage else { return };
        if requests.took_whole() || self.is_stalled {
            self.timer.clear();
        }
        if !self.is_stalled && requests.is_half() {
            self.timer.start(cx, cx.now() + self.config.handshake_timeout);
        }
    }

    fn send(&mut self, cx: &Cx<'_>) {
        if self.end == End::Gone {
            return;
        }
        let sent = if self.outbox.is_empty() {
            self.transport.flush().map(|_| true)
        } else {
            self.outbox.send(&mut self.transport)
        };
        match sent {
            Ok(_) if self.outbox.is_empty() => self.stuck_since = None,
            Ok(false) if self.stuck_since.is_some() => {}
            Ok(_) => self.stuck_since = Some(cx.now()),
            Err(failure) => self.failed(&failure),
        }
    }

    fn failed(&mut self, failure: &Failure) {
        match failure {
            // The client is told why, and closes.
            Failure::Tls(error) if self.end == End::No => {
                info!(peer = %self.peer, %error, "TLS failed");
                self.leave();
            }
            failure => {
                debug!(peer = %self.peer, error = %failure, "connection failed");
                self.go();
            }
        }
    }

    /// The client has closed.
    fn hung_up(&mut self) {
        if self.end == End::No {
            let in_flight = self.in_flight();
            debug!(peer = %self.peer, in_flight, "client hung up");
        }
        self.go();
    }

    /// From now on nothing is taken in.
    fn leave(&mut self) {
        self.end = End::Leaving;
        self.drop_input();
    }

    /// Ends the connection once everything is said.
    fn part(&mut self, cx: &mut Cx<'_>) {
        if self.end != End::Leaving || self.in_flight() > 0 || !self.outbox.is_empty() {
            return;
        }
        self.transport.say_end();
        match self.transport.flush() {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => return self.failed(&failure),
        }
        match self.peer {
            // What was sent is in the client's hands already.
            Peer::Unix(_) => self.go(),
            Peer::Tcp(_) => {
                self.end = End::Parting;
                self.timer.set(cx, cx.now() + PARTING);
                if shutdown(self.transport.socket(), Shutdown::Write).is_err() {
                    self.go();
                }
            }
        }
    }

    /// Ends the connection at once. The descriptor stays, because the worker knows it.
    fn go(&mut self) {
        self.end = End::Gone;
        self.drop_input();
        self.outbox.clear();
        self.stuck_since = None;
        self.timer.clear();
        // Either fails if the client was faster.
        self.transport.say_end();
        let _ = self.transport.flush();
        let _ = shutdown(self.transport.socket(), Shutdown::Both);
        debug!(peer = %self.peer, "client disconnected");
    }

    fn drop_input(&mut self) {
        self.is_stalled = false;
        self.kept = Kept::default();
        if let Stage::Transmission(requests) = &mut self.stage {
            requests.close();
        }
    }
}

impl Kept {
    fn keep(&mut self, bytes: &[u8], count: &KeptBytes) {
        if bytes.is_empty() {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        self.counted.get_or_insert_with(|| count.clone()).add(bytes.len());
    }

    /// Lets go of the bytes, and keeps no memory for others.
    fn clear(&mut self) {
        if let Some(count) = self.counted.take() {
            count.sub(self.bytes.len());
        }
        self.bytes = Vec::new();
        self.at = 0;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Unix(number) => write!(f, "unix client {number}"),
            Peer::Tcp(Some(address)) => write!(f, "{address}"),
            Peer::Tcp(None) => write!(f, "unknown address"),
        }
    }
}
