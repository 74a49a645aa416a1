//! One client's requests: from its stream to the volume, and back as replies.

use std::time::Duration;

use blkmq_core::{Flags, Op as VolumeOp, Status, Time};
use blkmq_runtime::{Buffer, Cx, Io, IoDone, VolumeId, held_bytes};

use super::allocation::{EXTENTS_MAX, allocation};
use super::config::ServerConfig;
use super::outbox::Outbox;
use super::slots::{Held, Rest, Slot, Slots, Then};
use crate::nbd::{Command, Cookie, Errno, Incoming, Op, Reply, Session, Span, Verdict, Violation};

/// The most requests of one connection that are in flight, or whose replies are not sent yet.
pub const REQUESTS_MAX: usize = 128;

/// The most of a volume that one request to its disk covers: the layer counts sectors in 32 bits.
/// What is longer is asked for piece by piece.
const PIECE_MAX_BYTES: u64 = 1 << 40;
/// The most that may wait to be sent of heads, messages and other small things, in bytes, before no
/// more requests are taken.
const SMALL_MAX_BYTES: usize = 4 << 10;

/// The rate at which a payload has to arrive while others wait for memory.
const PAYLOAD_MIN_BYTES_PER_SECOND: u128 = 1 << 20;

/// A tail longer than this is sent from a buffer, so that it counts as memory of its client.
const TAIL_MAX_BYTES: usize = 64;

/// The requests of a connection in transmission.
#[derive(Debug)]
pub(super) struct Requests {
    session: Session,
    min_block_bytes: u32,
    volume: VolumeId,
    quota_bytes: u64,
    own_bytes: usize,
    incoming: Incoming,
    /// What was read but has no room yet.
    held: Option<Command>,
    /// A write whose payload is on its way to us.
    payload: Option<Payload>,
    slots: Slots,
    held_in_flight: Held,
    took_whole: bool,
}

/// A write's payload that is on its way to us.
#[derive(Debug)]
struct Payload {
    cookie: Cookie,
    span: Span,
    fua: bool,
    buffer: Buffer,
    filled: usize,
    since: Time,
}

/// Why no more was taken from the stream.
#[derive(Debug)]
pub(super) enum Flow {
    /// All that was read is taken.
    Hungry,
    /// There is no room for more.
    Stalled,
    /// Others have their turn first.
    Enough,
    /// The client takes its leave.
    Leave,
    /// The client has broken the protocol.
    Broken(Violation),
}

/// There is no room for a request.
struct NoRoom;

impl Requests {
    /// Those of a new session over `volume`.
    pub(super) fn new(
        session: Session,
        min_block_bytes: u32,
        volume: VolumeId,
        config: &ServerConfig,
    ) -> Self {
        Requests {
            session,
            min_block_bytes,
            volume,
            quota_bytes: config.quota_bytes,
            own_bytes: config.own_bytes,
            incoming: Incoming::new(),
            held: None,
            payload: None,
            slots: Slots::default(),
            held_in_flight: Held::default(),
            took_whole: false,
        }
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Whether a request has begun to arrive and has not ended.
    pub(super) fn is_half(&self) -> bool {
        self.payload.is_some() || !self.incoming.is_idle()
    }

    /// Whether a payload has been on its way for `patience`, and comes more slowly than it should
    /// while it keeps memory from others.
    pub(super) fn is_dawdling(&self, now: Time, patience: Duration) -> bool {
        self.payload.as_ref().is_some_and(|payload| {
            let time = now.since(payload.since);
            let due_bytes = time.as_millis() * PAYLOAD_MIN_BYTES_PER_SECOND / 1000;
            time >= patience && (payload.filled as u128) < due_bytes
        })
    }

    /// Whether a request has ended to arrive since this was last asked.
    pub(super) fn took_whole(&mut self) -> bool {
        std::mem::take(&mut self.took_whole)
    }

    /// Where the next bytes of the stream belong, if they are a payload; perhaps nowhere any more.
    pub(super) fn payload_rest(&mut self) -> &mut [u8] {
        match &mut self.payload {
            Some(payload) => &mut payload.buffer[payload.filled..],
            None => &mut [],
        }
    }

    /// So much was put where [`Requests::payload_rest`] says.
    pub(super) fn payload_came(&mut self, len: usize) {
        if let Some(payload) = &mut self.payload {
            payload.filled += len;
        }
    }

    /// Takes requests from the front of `input`, and moves it past what was taken.
    pub(super) fn take(&mut self, cx: &mut Cx<'_>, input: &mut &[u8], outbox: &mut Outbox) -> Flow {
        for _ in 0..REQUESTS_MAX {
            if !self.take_payload(cx, input) {
                return Flow::Hungry;
            }
            let is_full = self.slots.len() + outbox.replies() >= REQUESTS_MAX;
            if is_full || outbox.small_bytes() > SMALL_MAX_BYTES {
                return Flow::Stalled;
            }
            let command = match self.held.take() {
                Some(command) => command,
                None => match self.incoming.next(&self.session, input) {
                    None => return Flow::Hungry,
                    Some(Verdict::Serve(command)) => command,
                    Some(Verdict::Refuse(refusal)) => {
                        self.took_whole = true;
                        outbox.push_reply(&refusal.reply(&self.session));
                        continue;
                    }
                    Some(Verdict::Disconnect) => return Flow::Leave,
                    Some(Verdict::Violation(violation)) => return Flow::Broken(violation),
                },
            };
            if self.begin(cx, command, outbox).is_err() {
                self.held = Some(command);
                return Flow::Stalled;
            }
            if matches!(command.op, Op::BlockStatus { .. }) {
                // The map is read there and then, in up to some hundred system calls.
                return Flow::Enough;
            }
        }
        Flow::Enough
    }

    /// Forgets what was not accepted yet: what has not arrived whole, or has no room.
    pub(super) fn close(&mut self) {
        self.held = None;
        self.payload = None;
    }

    /// A request has ended. It is answered in `outbox`, if the client still wants to know.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, done: IoDone, outbox: Option<&mut Outbox>) {
        if done.status.is_ok() && self.go_on(cx, done.mark) {
            return;
        }
        let slot = self.slots.remove(done.mark);
        self.held_in_flight.sub(slot.held);
        let Some(outbox) = outbox else { return };
        if let Some(errno) = Errno::from_status(done.status) {
            let is_slow = matches!((slot.then, done.status), (Then::Fast, Status::NotSupp));
            let errno = if is_slow { Errno::NotSup } else { errno };
            let message = message_of(done.status);
            outbox.push_reply(&self.session.failed(slot.cookie, errno, message));
        } else if let Then::Data(span) = slot.then {
            let buffer = done.buffer.expect("a read brings its memory back");
            outbox.push_data(&self.session.data(slot.cookie, span), buffer);
        } else {
            outbox.push_head(&self.session.done(slot.cookie));
        }
    }

    /// Goes on with a request that has succeeded so far. Whether there was more to do.
    fn go_on(&mut self, cx: &mut Cx<'_>, mark: u64) -> bool {
        let slot = self.slots.get_mut(mark);
        if let Some(rest) = slot.rest.take() {
            let Rest { op, flags, span } = *rest;
            let (piece, rest) = cut(span);
            slot.rest = rest.map(|span| Box::new(Rest { op, flags, span }));
            self.submit(cx, mark, op, Some(piece), flags, None);
            return true;
        }
        if let Then::Flush = slot.then {
            slot.then = Then::Done;
            self.submit(cx, mark, VolumeOp::Flush, None, Flags::empty(), None);
            return true;
        }
        false
    }

    /// Puts the front of `input` where a payload is missing. Whether none is missing any more.
    fn take_payload(&mut self, cx: &mut Cx<'_>, input: &mut &[u8]) -> bool {
        let Some(payload) = &mut self.payload else { return true };
        let rest = &mut payload.buffer[payload.filled..];
        let (here, beyond) = input.split_at(rest.len().min(input.len()));
        rest[..here.len()].copy_from_slice(here);
        payload.filled += here.len();
        *input = beyond;
        if payload.filled < payload.buffer.len() {
            return false;
        }
        if let Some(Payload { cookie, span, fua, buffer, .. }) = self.payload.take() {
            self.took_whole = true;
            let held = Held::by(&buffer);
            let mark = self.slots.insert(Slot { cookie, then: Then::Done, held, rest: None });
            let flags = if fua { Flags::FUA } else { Flags::empty() };
            self.submit(cx, mark, VolumeOp::Write, Some(span), flags, Some(buffer));
        }
        true
    }

    /// Begins what the client asks, if there is room for it.
    fn begin(
        &mut self,
        cx: &mut Cx<'_>,
        command: Command,
        outbox: &mut Outbox,
    ) -> Result<(), NoRoom> {
        let cookie = command.cookie;
        match command.op {
            Op::Read { span, .. } => {
                let buffer = self.buffer(cx, span.len_bytes() as usize, outbox)?;
                let (then, held) = (Then::Data(span), Held::by(&buffer));
                let mark = self.slots.insert(Slot { cookie, then, held, rest: None });
                self.submit(cx, mark, VolumeOp::Read, Some(span), Flags::empty(), Some(buffer));
            }
            Op::Write { span, fua } => {
                let buffer = self.buffer(cx, span.len_bytes() as usize, outbox)?;
                self.payload =
                    Some(Payload { cookie, span, fua, buffer, filled: 0, since: cx.now() });
                // It is whole only when its payload has come.
                return Ok(());
            }
            Op::Flush => {
                let mark = self.slots.insert(Slot {
                    cookie,
                    then: Then::Done,
                    held: Held::default(),
                    rest: None,
                });
                self.submit(cx, mark, VolumeOp::Flush, None, Flags::empty(), None);
            }
            Op::Trim { span, fua } => {
                // The layer has no FUA for a discard.
                let then = if fua { Then::Flush } else { Then::Done };
                self.begin_bare(cx, cookie, then, VolumeOp::Discard, span, Flags::empty());
            }
            Op::Cache { span } => {
                cx.prefetch(self.volume, span.offset_bytes(), span.len_bytes());
                outbox.push_head(&self.session.done(cookie));
            }
            Op::WriteZeroes { span, fua, no_hole, fast } => {
                let mut flags = Flags::empty();
                flags.set(Flags::FUA, fua);
                flags.set(Flags::NOUNMAP, no_hole);
                flags.set(Flags::NOFALLBACK, fast);
                let then = if fast { Then::Fast } else { Then::Done };
                self.begin_bare(cx, cookie, then, VolumeOp::WriteZeroes, span, flags);
            }
            Op::BlockStatus { span, one_extent } => {
                self.block_status(cx, cookie, span, one_extent, outbox)?;
            }
        }
        self.took_whole = true;
        Ok(())
    }

    /// Begins what changes a part of the volume and brings no data along.
    fn begin_bare(
        &mut self,
        cx: &mut Cx<'_>,
        cookie: Cookie,
        then: Then,
        op: VolumeOp,
        span: Span,
        flags: Flags,
    ) {
        let (piece, rest) = cut(span);
        let rest = rest.map(|span| Box::new(Rest { op, flags, span }));
        let mark = self.slots.insert(Slot { cookie, then, held: Held::default(), rest });
        self.submit(cx, mark, op, Some(piece), flags, None);
    }

    /// Memory of `len_bytes` for a request, or for its reply: from what this client was promised,
    /// as long as that lasts. A connection that holds nothing gets it beyond its quota too.
    fn buffer(
        &mut self,
        cx: &mut Cx<'_>,
        len_bytes: usize,
        outbox: &Outbox,
    ) -> Result<Buffer, NoRoom> {
        let mut held = self.held_in_flight;
        held.add(outbox.held());
        let bytes = held_bytes(len_bytes);
        if held.bytes > 0 && (held.bytes + bytes) as u64 > self.quota_bytes {
            return Err(NoRoom);
        }
        let buffer = if held.own_bytes + bytes <= self.own_bytes {
            cx.own_buffer(len_bytes)
        } else if held.bytes == 0 {
            cx.first_buffer(len_bytes)
        } else {
            cx.buffer(len_bytes)
        };
        let buffer = buffer.ok_or(NoRoom)?;
        self.held_in_flight.add(Held::by(&buffer));
        Ok(buffer)
    }

    fn submit(
        &self,
        cx: &mut Cx<'_>,
        mark: u64,
        op: VolumeOp,
        span: Option<Span>,
        flags: Flags,
        buffer: Option<Buffer>,
    ) {
        let offset_bytes = span.map_or(0, |span| span.offset_bytes());
        let len_bytes = span.map_or(0, |span| span.len_bytes());
        let io = Io { op, flags, prio: None, offset_bytes, len_bytes, buffer, mark };
        cx.submit(self.volume, io);
    }

    fn block_status(
        &mut self,
        cx: &mut Cx<'_>,
        cookie: Cookie,
        span: Span,
        one: bool,
        outbox: &mut Outbox,
    ) -> Result<(), NoRoom> {
        let len_bytes = span.len_bytes();
        let max = if one { 1 } else { EXTENTS_MAX };
        match cx.extents(self.volume, span.offset_bytes(), len_bytes, max) {
            Ok(extents) => {
                let replies =
                    self.session.structured().expect("block status is served to those who agreed");
                let told = allocation(&extents, len_bytes, self.min_block_bytes, one);
                let mut tail = Vec::new();
                let Reply { head, tail } = replies.block_status(cookie, &told, true, &mut tail);
                if tail.len() <= TAIL_MAX_BYTES {
                    outbox.push_reply(&Reply { head, tail });
                    return Ok(());
                }
                let mut buffer = self.buffer(cx, tail.len(), outbox)?;
                self.held_in_flight.sub(Held::by(&buffer));
                buffer.copy_from_slice(tail);
                outbox.push_data(&head, buffer);
            }
            Err(error) => {
                let status = error.raw_os_error().map_or(Status::IoErr, Status::from_errno);
                let errno = Errno::from_status(status).unwrap_or(Errno::Io);
                let message = "the device cannot tell what it holds";
                outbox.push_reply(&self.session.failed(cookie, errno, message));
            }
        }
        Ok(())
    }
}

/// What of `span` is asked for at a time, and what is left of it then.
fn cut(span: Span) -> (Span, Option<Span>) {
    let first_bytes = span.len_bytes().min(PIECE_MAX_BYTES);
    let first = span.part(0, first_bytes).expect("a span is not empty");
    (first, span.part(first_bytes, span.len_bytes() - first_bytes))
}

/// What a client is told, beside the number.
fn message_of(status: Status) -> &'static str {
    match status {
        Status::Ok => "done",
        Status::NoSpc => "no space is left on the device",
        Status::NotSupp => "the device cannot do this",
        Status::Inval => "the device does not take such a request",
        Status::Offline => "the device has gone",
        Status::ReadOnly => "the device is write-protected",
        Status::Timeout => "the device did not answer in time",
        _ => "the device failed",
    }
}
