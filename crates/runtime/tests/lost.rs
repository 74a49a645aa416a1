//! A device that loses a request: its client is answered in time, and the memory that the device
//! may still touch is nobody's until it has come back.

mod support;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use blkmq_core::{Flags, Op, Status};
use blkmq_drivers::{Model, ModelCache, ModelOptions};
use blkmq_models::{Effect, Fault, SlotsConfig};
use blkmq_runtime::{Buffer, Cx, Interest, Io, IoDone, Service, VolumeId};

use support::{LIMIT, SIZE_BYTES, adopt, engine};

const TIMEOUT: Duration = Duration::from_millis(30);
/// How long the device has lost the request.
const LOST: Duration = Duration::from_millis(600);
const LEN_BYTES: usize = 256 << 10;

/// Takes all buffers, reads into one of them, and takes that again as soon as it can.
struct Client {
    socket: UnixStream,
    volume: VolumeId,
    hoard: Vec<Buffer>,
    in_flight: usize,
    is_stopped: bool,
}

impl Client {
    fn tell(&mut self, byte: u8) {
        self.socket.write_all(&[byte]).expect("a byte can be sent");
    }
}

impl Service for Client {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn interest(&self) -> Interest {
        Interest { readable: !self.is_stopped, ..Interest::default() }
    }

    fn ready(&mut self, cx: &mut Cx<'_>, _ready: Interest) {
        if !self.socket.read(&mut [0]).is_ok_and(|read| read == 1) {
            return;
        }
        self.hoard.extend(std::iter::from_fn(|| cx.buffer(LEN_BYTES)));
        let io = Io {
            op: Op::Read,
            flags: Flags::empty(),
            prio: None,
            offset_bytes: 0,
            len_bytes: LEN_BYTES as u64,
            buffer: Some(self.hoard.pop().expect("there is a megabyte")),
            mark: 7,
        };
        cx.submit(self.volume, io);
        self.in_flight += 1;
    }

    fn done(&mut self, cx: &mut Cx<'_>, done: IoDone) {
        assert_eq!((done.mark, done.status), (7, Status::Timeout));
        assert!(done.buffer.is_none(), "the device may still fill it");
        assert!(cx.buffer(LEN_BYTES).is_none(), "nor does anybody else get it");
        self.in_flight -= 1;
        self.tell(b'!');
    }

    fn flush(&mut self, _cx: &mut Cx<'_>) {}

    fn retry(&mut self, cx: &mut Cx<'_>) {
        if let Some(buffer) = cx.buffer(LEN_BYTES) {
            self.hoard.push(buffer);
            self.tell(b'+');
        }
    }

    fn deadline(&mut self, _cx: &mut Cx<'_>) {}

    fn stop(&mut self, _cx: &mut Cx<'_>) {
        self.is_stopped = true;
    }

    fn is_finished(&self) -> bool {
        self.is_stopped && self.in_flight == 0
    }
}

fn losing_device() -> Model {
    let lost = Effect::Lost { for_ns: Some(LOST.as_nanos() as u64) };
    let faults = vec![Fault { limit: 1, ..Fault::rate(1_000_000, lost) }];
    let slots = SlotsConfig { faults, ..SlotsConfig::default() };
    let cache = ModelCache::default();
    Model::new(ModelOptions { size_bytes: SIZE_BYTES, slots, store: true, cache })
}

#[test]
fn a_client_is_answered_in_time_and_its_memory_is_kept_until_the_device_returns_it() {
    let (mut engine, volume) = engine(losing_device(), Some(TIMEOUT));
    let mut client = adopt(&mut engine, |socket| {
        let hoard = Vec::new();
        Client { socket, volume, hoard, in_flight: 0, is_stopped: false }
    });
    let start = Instant::now();
    client.write_all(b"?").expect("a byte can be sent");
    let mut told = [0];
    client.read_exact(&mut told).expect("it is answered");
    assert_eq!(told, *b"!");
    assert!(start.elapsed() >= TIMEOUT, "{:?}", start.elapsed());
    assert_eq!(engine.controls()[0].held().in_flight, 1, "the device still has the request");
    client.read_exact(&mut told).expect("the memory comes back");
    assert_eq!(told, *b"+");
    assert!(start.elapsed() >= LOST, "{:?}", start.elapsed());
    assert_eq!(engine.controls()[0].held().in_flight, 0);
    engine.stop(LIMIT).expect("the engine stops");
}
