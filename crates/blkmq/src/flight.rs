//! An I/O under way, and the future that waits for it.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use blkmq_core::{Flags, Priority, Segments, Status};
use blkmq_runtime::{Caller, RemoteIo};

use crate::error::Error;
use crate::gate::{Entry, Place, Waiter};
use crate::kind::Kind;
use crate::request::Request;
use crate::volume::Address;

/// A future that ends when its I/O has.
///
/// The I/O begins when the future is first polled, or with [`Request::submit`]. It works on any
/// executor.
///
/// Dropping it is safe at any time. An I/O that has not gone to the layer yet is forgotten. One
/// that has is carried out all the same, and its memory is freed, by a thread of the engine, when
/// the device has given it back.
///
/// ```
/// # use std::time::Duration;
/// # use blkmq::{Builder, DiskOptions, VolumeOptions};
/// # let mut builder = Builder::new();
/// # let disk = builder.memory_disk(1 << 20, DiskOptions::new())?;
/// # builder.volume("v", disk, VolumeOptions::new())?;
/// # let engine = builder.start()?;
/// # let volume = engine.volume("v")?;
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// // Many at once from one task; `submit` has them begin before they are awaited.
/// let writes = [1u8, 2, 3].map(|i| volume.write(u64::from(i) * 512, vec![i; 512]).submit());
/// for write in writes {
///     write.await.0?;
/// }
/// // Whoever is in a hurry may let go: the read ends by itself.
/// let read = volume.read(512, vec![0; 1536]);
/// match tokio::time::timeout(Duration::from_secs(1), read).await {
///     Ok((result, bytes)) => result.map(|()| assert_eq!(bytes[1535], 3))?,
///     Err(_elapsed) => println!("not in a second"),
/// }
/// # Ok::<(), blkmq::Error>(())
/// # })?;
/// # Ok::<(), blkmq::Error>(())
/// ```
#[must_use = "an I/O does nothing unless it is awaited, waited for, or submitted"]
pub struct Io<K: Kind> {
    state: State<K>,
}

enum State<K: Kind> {
    /// Not polled yet.
    New(Request<K>),
    /// It needs no device: it makes no sense, or there is nothing to do.
    Ended(K, Result<(), Error>),
    /// Somewhere between here and the device.
    Sent(Arc<Flight<K>>, Option<Place>),
    /// The answer was given.
    Answered,
}

/// An I/O under way. It owns the memory, and is kept by whoever will end it.
pub(crate) struct Flight<K> {
    address: Arc<Address>,
    /// The worker it goes to.
    worker: usize,
    flags: Flags,
    prio: Priority,
    offset_bytes: u64,
    len_bytes: u64,
    /// Not to be touched while the device has the memory: between `go` and the end.
    kind: Mutex<Option<K>>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    end: Option<End>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
enum End {
    Status(Status),
    Closed,
}

thread_local! {
    /// The number of this thread among those that submit, once it has one.
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    /// This thread is a worker's.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

static NUMBERS: AtomicUsize = AtomicUsize::new(0);

/// Whether the calling thread is one that the engine's I/Os wait for.
pub(crate) fn is_worker() -> bool {
    IS_WORKER.get()
}

/// The worker that serves the calling thread: the threads that submit are numbered as they come,
/// and go to the workers in turn. So one thread's I/Os stay together and in their order.
fn worker_of_thread(workers: usize) -> usize {
    let number = NUMBER.get().unwrap_or_else(|| NUMBERS.fetch_add(1, Ordering::Relaxed));
    NUMBER.set(Some(number));
    number % workers
}

impl<K: Kind> Io<K> {
    pub(crate) fn new(request: Request<K>) -> Self {
        Io { state: State::New(request) }
    }

    /// Has the I/O begin, if it has not.
    pub(crate) fn begin(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Answered) {
            State::New(request) => send(request),
            other => other,
        };
    }
}

/// Sends an I/O on its way, unless it has ended before it began.
fn send<K: Kind>(request: Request<K>) -> State<K> {
    let Request { volume, flags, prio, offset_bytes, kind } = request;
    match volume.check(&kind, offset_bytes) {
        Ok(true) => {}
        Ok(false) => return State::Ended(kind, Ok(())),
        Err(error) => return State::Ended(kind, Err(error)),
    }
    let flight = Arc::new(Flight {
        worker: worker_of_thread(volume.address.handle.workers()),
        address: Arc::clone(&volume.address),
        flags,
        prio,
        offset_bytes,
        len_bytes: kind.len_bytes(),
        kind: Mutex::new(Some(kind)),
        progress: Mutex::default(),
    });
    let waiter = || Arc::clone(&flight) as Arc<dyn Waiter>;
    let place = match flight.address.gate.enter(prio.class, waiter) {
        Entry::Wait(place) => Some(place),
        Entry::Closed => {
            flight.end(End::Closed);
            None
        }
        Entry::Go => {
            if !Arc::clone(&flight).go() {
                flight.address.gate.leave();
            }
            None
        }
    };
    State::Sent(flight, place)
}

impl<K: Kind> Flight<K> {
    /// Notes how the I/O has ended, and wakes who waits.
    fn end(&self, end: End) {
        let waker = {
            let mut progress = lock(&self.progress);
            assert!(progress.end.is_none(), "an I/O ends once");
            progress.end = Some(end);
            progress.waker.take()
        };
        // Waking runs a stranger's code, so the lock is not held.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn result(&self, end: End) -> Result<(), Error> {
        let volume = || self.address.name.clone();
        let operation = K::NAME;
        match end {
            End::Status(Status::Ok) => Ok(()),
            End::Status(Status::NotSupp) => Err(Error::Unsupported { volume: volume(), operation }),
            End::Status(status) => Err(Error::Device {
                volume: volume(),
                operation,
                offset_bytes: self.offset_bytes,
                len_bytes: self.len_bytes,
                status,
            }),
            End::Closed => Err(Error::Closed),
        }
    }
}

impl<K: Kind> Waiter for Flight<K> {
    fn go(self: Arc<Self>) -> bool {
        let mut segments = Segments::new();
        if let Some(kind) = &mut *lock(&self.kind) {
            // SAFETY: the kind rests here, in memory that whoever will end the request keeps, and
            // is taken out only after its end. `check` has looked at the lengths.
            unsafe { kind.lend(&mut segments) };
        }
        let io = RemoteIo {
            op: K::OP,
            flags: self.flags,
            prio: Some(self.prio),
            offset_bytes: self.offset_bytes,
            len_bytes: self.len_bytes,
            segments,
            caller: Arc::clone(&self) as Arc<dyn Caller>,
        };
        let sent = self.address.handle.submit(self.worker, self.address.id, io).is_ok();
        if !sent {
            self.end(End::Closed);
        }
        sent
    }

    fn close(self: Arc<Self>) {
        self.end(End::Closed);
    }
}

impl<K: Kind> Caller for Flight<K> {
    fn done(self: Arc<Self>, status: Status) {
        IS_WORKER.set(true);
        // The device is kept busy first.
        self.address.gate.leave();
        self.end(End::Status(status));
    }
}

impl<K: Kind> Future for Io<K> {
    type Output = K::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<K::Output> {
        self.begin();
        if let State::Sent(flight, _) = &self.state {
            let mut progress = lock(&flight.progress);
            if progress.end.is_none() {
                match &mut progress.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
        }
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Ended(kind, result) => Poll::Ready(kind.answer(result)),
            State::Sent(flight, _) => {
                let end = lock(&flight.progress).end.expect("it was looked at just now");
                let kind = lock(&flight.kind).take().expect("the answer is given once");
                Poll::Ready(kind.answer(flight.result(end)))
            }
            State::New(_) | State::Answered => panic!("an I/O was polled after its end"),
        }
    }
}

// Nothing in it is ever pinned: what the device has lies in the flight.
impl<K: Kind> Unpin for Io<K> {}

impl<K: Kind> Drop for Io<K> {
    fn drop(&mut self) {
        if let State::Sent(flight, Some(place)) = &self.state {
            flight.address.gate.cancel(*place);
        }
    }
}

impl<K: Kind> fmt::Debug for Io<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "new",
            State::Ended(..) | State::Sent(..) => "begun",
            State::Answered => "answered",
        };
        f.debug_struct("Io").field("operation", &K::NAME).field("state", &state).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole by itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
