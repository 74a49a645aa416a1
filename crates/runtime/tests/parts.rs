//! Requests for parts of blocks get through although no memory is to be had.

mod support;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use blkmq_core::{Flags, Op, Status};
use blkmq_drivers::Memory;
use blkmq_runtime::{Buffer, Cx, Interest, Io, IoDone, Service, VolumeId};

use support::{LIMIT, SIZE_BYTES, adopt, engine};

/// How many requests are submitted at once; more than have bounce buffers.
const REQUESTS: usize = 20;
/// What is added to the mark of a read.
const READ: u64 = REQUESTS as u64;

/// Takes all the memory there is, and writes and reads parts of blocks without giving any back.
struct Hoarder {
    socket: UnixStream,
    volume: VolumeId,
    hoard: Vec<Buffer>,
    in_flight: usize,
    is_stopped: bool,
}

impl Hoarder {
    fn submit(&mut self, cx: &mut Cx<'_>, op: Op, sector: usize, buffer: Buffer) {
        let offset_bytes = sector as u64 * 512;
        let mark = sector as u64 + if op == Op::Read { READ } else { 0 };
        let len_bytes = buffer.len() as u64;
        let io = Io {
            op,
            flags: Flags::empty(),
            prio: None,
            offset_bytes,
            len_bytes,
            buffer: Some(buffer),
            mark,
        };
        cx.submit(self.volume, io);
        self.in_flight += 1;
    }
}

impl Service for Hoarder {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn interest(&self) -> Interest {
        Interest { readable: !self.is_stopped, ..Interest::default() }
    }

    fn ready(&mut self, cx: &mut Cx<'_>, _ready: Interest) {
        let mut byte = [0];
        if !self.socket.read(&mut byte).is_ok_and(|read| read == 1) {
            return;
        }
        let mut parts: Vec<Buffer> =
            (0..REQUESTS).map(|_| cx.buffer(512).expect("there is a megabyte")).collect();
        for len_bytes in [256 << 10, 64 << 10, 8 << 10, 4 << 10] {
            self.hoard.extend(std::iter::from_fn(|| cx.buffer(len_bytes)));
        }
        for (mark, mut buffer) in parts.drain(..).enumerate() {
            buffer.fill(1 + mark as u8);
            self.submit(cx, Op::Write, mark, buffer);
        }
    }

    fn done(&mut self, cx: &mut Cx<'_>, done: IoDone) {
        assert_eq!(done.status, Status::Ok);
        self.in_flight -= 1;
        let mut buffer = done.buffer.expect("the memory comes back");
        let mark = done.mark as usize % REQUESTS;
        if done.mark < READ {
            buffer.fill(0);
            self.submit(cx, Op::Read, mark, buffer);
            return;
        }
        assert!(buffer.iter().all(|byte| *byte == 1 + mark as u8), "what was written is read");
        self.hoard.push(buffer);
        if self.in_flight == 0 {
            self.socket.write_all(b"!").expect("a byte can be sent");
        }
    }

    fn flush(&mut self, _cx: &mut Cx<'_>) {}

    fn retry(&mut self, _cx: &mut Cx<'_>) {}

    fn deadline(&mut self, _cx: &mut Cx<'_>) {}

    fn stop(&mut self, _cx: &mut Cx<'_>) {
        self.is_stopped = true;
    }

    fn is_finished(&self) -> bool {
        self.is_stopped && self.in_flight == 0
    }
}

#[test]
fn parts_of_blocks_need_no_memory_that_others_have() {
    let (mut engine, volume) = engine(Memory::with_block(SIZE_BYTES, 4096), None);
    let mut client = adopt(&mut engine, |socket| {
        let hoard = Vec::new();
        Hoarder { socket, volume, hoard, in_flight: 0, is_stopped: false }
    });
    client.write_all(b"+").expect("a byte can be sent");
    client.read_exact(&mut [0]).expect("all requests end");
    engine.stop(LIMIT).expect("the engine stops");
}
