//! What a service can reach of its worker, for the time of one call.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use blkmq_core::{Bio, Done, Flags, Memory, Op, Priority, Segments, Status, Time};
use blkmq_drivers::Extent;
use slab::Slab;

use crate::buffer::{Buffer, BufferPool, Share, share_of};
use crate::clock::Clock;
use crate::mailbox::{Mailbox, adopt};
use crate::poller::Poller;
use crate::port::{Port, Work};
use crate::ranges::RangeLock;
use crate::remote::Caller;
use crate::service::{Io, Service};
use crate::timers::Timers;
use crate::unaligned::Hold;
use crate::volume::{Placed, Volume, VolumeId};

/// How long the receive buffer is that a worker lends to its services.
pub(crate) const SCRATCH_BYTES: usize = 256 << 10;

/// What a service can reach of its worker.
pub(crate) struct Hands {
    pub(crate) index: usize,
    pub(crate) clock: Clock,
    pub(crate) now: Time,
    pub(crate) disks: Vec<Disk>,
    pub(crate) volumes: Arc<[Placed]>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) poller: Poller,
    pub(crate) timers: Timers,
    /// Requests of this worker's clients; the cookie is the place here.
    pub(crate) requests: Slab<Pending>,
    /// Requests that ended here: their disk was not asked, or has answered all their parts.
    pub(crate) ended: Vec<Done>,
    /// Unaligned requests that wait for a bounce buffer, in the order of their coming.
    pub(crate) without_bounce: VecDeque<usize>,
    /// The bounce buffer for when the pool is empty; absent while it is in use.
    pub(crate) reserve: Option<Buffer>,
    /// The length of bounce buffers; `None` if no disk needs any.
    pub(crate) bounce_bytes: Option<usize>,
    /// Clients that wait for memory.
    pub(crate) hungry: Hungry,
    /// Clients that go on in the next round.
    pub(crate) again: Vec<usize>,
    pub(crate) scratch: Vec<u8>,
    /// Last, so that it outlives the rings that are told of it.
    pub(crate) pool: BufferPool,
}

/// Clients that wait for memory: for short buffers, and for long ones.
#[derive(Debug, Default)]
pub(crate) struct Hungry {
    pub(crate) short: Line,
    pub(crate) long: Line,
    /// Whose turn it is.
    pub(crate) fed: Option<Fed>,
}

/// A client whose turn it is to get one buffer.
#[derive(Debug)]
pub(crate) struct Fed {
    client: usize,
    share: Share,
    /// He has asked.
    has_asked: bool,
    /// He has got none, and waits on where he came from: among those who hold nothing, or not.
    refused: Option<bool>,
}

/// Clients that wait for one kind of memory. Those who hold none come first, and among either those
/// who came earlier: so who asks for one thing at a time is not kept waiting by those who hold much
/// and want more.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) empty_handed: VecDeque<usize>,
    pub(crate) others: VecDeque<usize>,
}

impl Hungry {
    pub(crate) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.long.is_empty()
    }

    /// Takes a client out. Whether he was there.
    pub(crate) fn remove(&mut self, client: usize) -> bool {
        let Hungry { short, long, .. } = self;
        let lines =
            [&mut short.empty_handed, &mut short.others, &mut long.empty_handed, &mut long.others];
        let mut was_there = false;
        for line in lines {
            let before = line.len();
            line.retain(|hungry| *hungry != client);
            was_there |= line.len() < before;
        }
        was_there
    }

    /// Those who wait for a share.
    pub(crate) fn line(&mut self, share: Share) -> &mut Line {
        match share {
            Share::Long => &mut self.long,
            Share::Own | Share::Short => &mut self.short,
        }
    }

    /// Makes it the turn of the first in the line of a share, and tells who that is.
    pub(crate) fn begin_turn(&mut self, share: Share) -> Option<usize> {
        let line = self.line(share);
        let client = line.empty_handed.pop_front().or_else(|| line.others.pop_front())?;
        self.fed = Some(Fed { client, share, has_asked: false, refused: None });
        Some(client)
    }

    /// Ends the turn. Whether he is still the first, because there was nothing for him.
    pub(crate) fn end_turn(&mut self) -> bool {
        let fed = self.fed.take().expect("a turn was begun");
        let Some(is_empty_handed) = fed.refused else { return false };
        let line = self.line(fed.share);
        let line = if is_empty_handed { &mut line.empty_handed } else { &mut line.others };
        line.push_front(fed.client);
        true
    }

    /// The turn of `client` at a share, if it is his and he has not asked yet.
    fn turn_of(&mut self, client: usize, share: Share) -> Option<&mut Fed> {
        let fed = self.fed.as_mut()?;
        (fed.client == client && fed.share == share && !fed.has_asked).then_some(fed)
    }
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.empty_handed.len() + self.others.len()
    }

    fn join(&mut self, client: usize, is_empty_handed: bool) {
        let line = if is_empty_handed { &mut self.empty_handed } else { &mut self.others };
        if !line.contains(&client) {
            line.push_back(client);
        }
    }
}

/// A disk, and what is wanted of the next turn at it.
pub(crate) struct Disk {
    pub(crate) port: Box<dyn Port>,
    pub(crate) work: Work,
    /// Absent if the disk takes everything that can be asked for as it is.
    pub(crate) ranges: Option<Arc<RangeLock>>,
}

/// A request in flight.
pub(crate) struct Pending {
    pub(crate) owner: Owner,
    pub(crate) mark: u64,
    pub(crate) buffer: Option<Buffer>,
    /// What it holds on its disk, or waits for.
    pub(crate) hold: Option<Hold>,
}

/// Whose a request is.
pub(crate) enum Owner {
    Client(usize),
    /// Somebody outside.
    Caller(Arc<dyn Caller>),
    /// A flush of the worker's own.
    Worker,
    /// A part of the unaligned request at this place in `requests`.
    Part(usize),
    /// A client that has been answered already, while the device still has the memory.
    Answered,
}

/// What is wanted of a volume.
pub(crate) struct Wanted {
    pub(crate) op: Op,
    pub(crate) flags: Flags,
    pub(crate) prio: Option<Priority>,
    pub(crate) offset_bytes: u64,
    pub(crate) len_bytes: u64,
}

/// A service's way to its worker, for the time of one call.
pub struct Cx<'a> {
    pub(crate) hands: &'a mut Hands,
    pub(crate) client: usize,
    pub(crate) deadline: &'a mut Option<Time>,
}

impl Disk {
    pub(crate) fn is_due(&self) -> bool {
        self.work.is_due() || self.port.has_finished()
    }
}

impl Hands {
    pub(crate) fn is_due(&self) -> bool {
        !self.ended.is_empty() || self.disks.iter().any(Disk::is_due)
    }

    /// Ends a request that its disk does not know of (any more).
    pub(crate) fn finish(&mut self, cookie: u64, status: Status, submitted_at: Time) {
        let memory = Memory::Returned;
        self.ended.push(Done { cookie, status, issued_at: submitted_at, submitted_at, memory });
    }

    /// Has the next turn submit a request, or refuses it. What `segments` lends must be owned by
    /// `pending`, which is kept until the request has come back.
    pub(crate) fn submit(
        &mut self,
        volume: VolumeId,
        wanted: Wanted,
        segments: Segments,
        pending: Pending,
    ) {
        let Wanted { op, flags, prio, offset_bytes, len_bytes } = wanted;
        let cookie = self.requests.insert(pending) as u64;
        let volume = &self.volumes[volume.0];
        let bio = volume.place(offset_bytes, len_bytes).map(|(sector, nr_sectors)| Bio {
            op,
            flags,
            prio: prio.unwrap_or(volume.prio),
            volume: volume.on_disk,
            sector: if op == Op::Flush { 0 } else { sector },
            nr_sectors,
            segments,
            cookie,
        });
        let disk = volume.disk.0;
        match bio {
            Some(bio) if !(volume.read_only && op.is_write()) => self.enter(disk, bio),
            Some(_) => self.finish(cookie, Status::ReadOnly, self.now),
            None => self.finish(cookie, Status::Inval, self.now),
        }
    }

    pub(crate) fn submit_flush(&mut self, disk: usize) {
        let cookie = self.requests.insert(Pending {
            owner: Owner::Worker,
            mark: 0,
            buffer: None,
            hold: None,
        });
        self.disks[disk].work.pending.push_back(Bio {
            op: Op::Flush,
            flags: Flags::empty(),
            prio: Priority::default(),
            volume: blkmq_core::VolumeId::default(),
            sector: 0,
            nr_sectors: 0,
            segments: Segments::new(),
            cookie: cookie as u64,
        });
    }
}

impl Cx<'_> {
    /// The time of this round.
    pub fn now(&self) -> Time {
        self.hands.now
    }

    /// A volume.
    pub fn volume(&self, id: VolumeId) -> &Volume {
        &self.hands.volumes[id.0]
    }

    /// Memory for one request, from what is for all; `None` while there is none, or others wait for
    /// it, and then [`Service::retry`] will be called. Long buffers, of more than a megabyte, and
    /// others are waited for apart.
    ///
    /// # Panics
    ///
    /// If more than [`crate::BUFFER_MAX_BYTES`] are asked for.
    pub fn buffer(&mut self, len_bytes: usize) -> Option<Buffer> {
        self.common_buffer(len_bytes, false)
    }

    /// As [`Cx::buffer`], for a service that holds no memory: it goes before those who do.
    pub fn first_buffer(&mut self, len_bytes: usize) -> Option<Buffer> {
        self.common_buffer(len_bytes, true)
    }

    fn common_buffer(&mut self, len_bytes: usize, is_empty_handed: bool) -> Option<Buffer> {
        let hands = &mut *self.hands;
        let share = share_of(len_bytes);
        if let Some(turn) = hands.hungry.turn_of(self.client, share) {
            turn.has_asked = true;
            let buffer = hands.pool.get(len_bytes);
            turn.refused = buffer.is_none().then_some(is_empty_handed);
            return buffer;
        }
        let line = hands.hungry.line(share);
        // Who comes later does not overtake, or a longer buffer might never be had.
        let is_next = line.empty_handed.is_empty() && (is_empty_handed || line.others.is_empty());
        let buffer = if is_next { hands.pool.get(len_bytes) } else { None };
        if buffer.is_none() {
            line.join(self.client, is_empty_handed);
        }
        buffer
    }

    /// Memory for one request, from what this client was promised. It keeps to that by itself; if
    /// it does, there is always some, unless a device has not given back the memory of requests
    /// that were given up, and then [`Service::retry`] will be called.
    ///
    /// # Panics
    ///
    /// If more than [`crate::BUFFER_MAX_BYTES`] are asked for.
    pub fn own_buffer(&mut self, len_bytes: usize) -> Option<Buffer> {
        let buffer = self.hands.pool.get_own(len_bytes);
        if buffer.is_none() {
            self.hands.hungry.line(Share::Own).join(self.client, true);
        }
        buffer
    }

    /// Has [`Service::flush`] called in another round, which comes without sleep: for a service
    /// that has more to do than others should wait for.
    pub fn again(&mut self) {
        self.hands.again.push(self.client);
    }

    /// Submits an I/O. It ends in [`Service::done`], with an error if the volume cannot do it.
    ///
    /// Offset and length are multiples of 512 bytes. Multiples of the disk's logical block are
    /// served best; what is not takes more requests to the disk, and holds off whatever else
    /// changes the same blocks.
    pub fn submit(&mut self, volume: VolumeId, io: Io) {
        let hands = &mut *self.hands;
        let Io { op, flags, prio, offset_bytes, len_bytes, mut buffer, mark } = io;
        let disk = &hands.disks[hands.volumes[volume.0].disk.0];
        let mut segments = Segments::new();
        if let Some(buffer) = &mut buffer {
            if op == Op::Read && !disk.port.fills_reads() {
                // The memory has held other clients' data.
                buffer.fill(0);
            }
            // SAFETY: the buffer rests in `requests` until the request has come back.
            segments.push(unsafe { buffer.segment() });
        }
        let owner = Owner::Client(self.client);
        let pending = Pending { owner, mark, buffer, hold: None };
        hands.submit(
            volume,
            Wanted { op, flags, prio, offset_bytes, len_bytes },
            segments,
            pending,
        );
    }

    /// Takes the worker's receive buffer, 256 KiB long. It has to be put back before the call
    /// returns.
    pub fn scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hands.scratch)
    }

    /// Puts the receive buffer back.
    pub fn put_scratch(&mut self, scratch: Vec<u8>) {
        assert_eq!(scratch.len(), SCRATCH_BYTES, "the receive buffer comes back whole");
        self.hands.scratch = scratch;
    }

    /// Has [`Service::deadline`] called at `at`, instead of at the time set before; `None` for
    /// never.
    pub fn set_deadline(&mut self, at: Option<Time>) {
        *self.deadline = at;
        if let Some(at) = at {
            self.hands.timers.deadline(self.client, at);
        }
    }

    /// The map of a volume: at most `max` stretches from `offset_bytes` on, covering at most
    /// `len_bytes`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range does not lie in the volume, and those of the device, see
    /// [`blkmq_drivers::Device::extents`].
    pub fn extents(
        &mut self,
        volume: VolumeId,
        offset_bytes: u64,
        len_bytes: u64,
        max: usize,
    ) -> io::Result<Vec<Extent>> {
        let volume = &self.hands.volumes[volume.0];
        let port = &self.hands.disks[volume.disk.0].port;
        let Some(offset_bytes) = volume.offset_of(offset_bytes, len_bytes) else {
            return Err(rustix::io::Errno::INVAL.into());
        };
        port.extents(offset_bytes, len_bytes, max)
    }

    /// Tells the device that a part of a volume will be read soon; see
    /// [`blkmq_drivers::Device::prefetch`]. What does not lie in the volume is passed over.
    pub fn prefetch(&mut self, volume: VolumeId, offset_bytes: u64, len_bytes: u64) {
        let volume = &self.hands.volumes[volume.0];
        let port = &self.hands.disks[volume.disk.0].port;
        if let Some(offset_bytes) = volume.offset_of(offset_bytes, len_bytes) {
            port.prefetch(offset_bytes, len_bytes);
        }
    }

    /// Hands a new client to the worker that has the fewest.
    pub fn adopt(&mut self, service: Box<dyn Service>) {
        adopt(&self.hands.mailboxes, service);
    }
}
