//! Requests, and what they do to the volume.

use std::io::Write;
use std::thread;
use std::time::Duration;

use blkmq_drivers::Memory;

use crate::client::{
    BLOCK_STATUS, Client, DISC, EINVAL, EIO, FLUSH, FUA, READ, REQ_ONE, TRIM, WRITE, WRITE_ZEROES,
    option_bytes, pattern, request, write_request,
};
use crate::fixture::{SIZE_BYTES, Server, Wanted};
use crate::gate::{Gate, Gated};

#[test]
fn what_is_written_is_read() {
    let server = Server::start();
    let mut client = server.client();
    // The longest goes beyond what is read at a time.
    for (seed, len) in [512, 4096, 65536, 300 << 10, 4 << 20].into_iter().enumerate() {
        let data = pattern(seed as u64, len);
        let offset = (seed << 23) as u64;
        assert_eq!(client.write_at(offset, &data), 0);
        assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
        assert!(server.client().read_at(offset, len as u32) == data, "{len} bytes");
    }
    assert_eq!(client.ask(TRIM, FUA, 0, 1 << 20), 0);
    assert_eq!(client.ask(WRITE_ZEROES, FUA, 2 << 23, 4096), 0);
    assert!(client.read_at(0, 512).iter().all(|byte| *byte == 0));
    let last = client.read_at(2 << 23, 65536);
    assert!(last[..4096].iter().all(|byte| *byte == 0));
    assert!(last[4096..] == pattern(2, 65536)[4096..]);
    server.stop();
}

#[test]
fn a_client_may_say_everything_at_once() {
    let server = Server::start();
    let mut client = Client::connect(&server.path);
    let go = option_bytes(7, &[&4_u32.to_be_bytes()[..], b"gold", &[0, 0]].concat());
    let data = pattern(6, 4096);
    client.write(
        &[
            &3_u32.to_be_bytes()[..],
            &option_bytes(3, &[]),
            &option_bytes(99, &[1; 1000]),
            &go,
            &write_request(1, 0, 4096, &data),
            &request(2, FLUSH, 0, 0, 0),
            &request(3, DISC, 0, 0, 0),
        ]
        .concat(),
    );
    let rest = client.rest();
    let replies = &rest[rest.len() - 32..];
    assert_eq!(rest[..8], *b"NBDMAGIC");
    assert_eq!(replies[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
    assert_eq!(replies[16..24], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
    assert!(server.client().read_at(4096, 4096) == data);
    server.stop();
}

#[test]
fn a_refused_write_leaves_the_stream_whole() {
    let server = Server::start();
    let mut client = server.client();
    assert_eq!(client.write_at(1, &pattern(1, 4096)), EINVAL, "unaligned");
    assert_eq!(client.write_at(0, &pattern(1, 5 << 20)), EINVAL, "too long");
    assert_eq!(client.ask(READ, 0, SIZE_BYTES, 512), EINVAL);
    assert!(client.read_at(0, 4096).iter().all(|byte| *byte == 0));
    server.stop();
}

#[test]
fn a_writer_may_trickle() {
    let server = Server::start();
    let mut client = server.client();
    let data = pattern(5, 1024);
    for byte in write_request(1, 0, 512, &data) {
        client.write(&[byte]);
        thread::sleep(Duration::from_micros(50));
    }
    assert_eq!(client.reply(), (1, 0));
    assert!(client.read_at(512, 1024) == data);
    server.stop();
}

#[test]
fn many_requests_may_be_under_way() {
    let server = Server::start();
    let mut client = server.client();
    let mut stream = client.stream.try_clone().unwrap();
    // Both more than a connection may have in flight and more than its sockets hold.
    let count = 1000_u64;
    let writer = thread::spawn(move || {
        for cookie in 0..count {
            let request = write_request(cookie, 0, cookie * 8192, &pattern(cookie, 8192));
            stream.write_all(&request).unwrap();
        }
        for cookie in 0..count {
            stream.write_all(&request(cookie, READ, 0, cookie * 8192, 8192)).unwrap();
        }
    });
    let mut written: Vec<u64> = (0..count)
        .map(|_| {
            let (cookie, error) = client.reply();
            assert_eq!(error, 0);
            cookie
        })
        .collect();
    written.sort_unstable();
    assert!(written.into_iter().eq(0..count), "each is answered once");
    for _ in 0..count {
        let (cookie, error) = client.reply();
        assert_eq!(error, 0);
        assert!(client.read(8192) == pattern(cookie, 8192), "read {cookie}");
    }
    writer.join().unwrap();
    server.stop();
}

#[test]
fn refusals_alone_stall_nobody() {
    let server = Server::start();
    let mut client = server.client();
    let requests: Vec<u8> =
        (0..2000).flat_map(|cookie| request(cookie, READ, 0, SIZE_BYTES, 512)).collect();
    client.write(&requests);
    for cookie in 0..2000 {
        assert_eq!(client.reply(), (cookie, EINVAL));
    }
    server.stop();
}

#[test]
fn a_reader_that_does_not_read_is_held_back_and_nobody_else() {
    let server = Server::start();
    let mut lazy = server.client();
    let data = pattern(3, 1 << 20);
    assert_eq!(lazy.write_at(0, &data), 0);
    let count = 200;
    for cookie in 0..count {
        lazy.write(&request(cookie, READ, 0, 0, 1 << 20));
    }
    // Its quota is full now or soon; whoever shares its worker is served all the same.
    for _ in 0..4 {
        let mut other = server.client();
        for _ in 0..50 {
            assert!(other.read_at(0, 65536) == data[..65536]);
        }
    }
    let mut cookies: Vec<u64> = (0..count)
        .map(|_| {
            let (cookie, error) = lazy.reply();
            assert_eq!(error, 0);
            assert!(lazy.read(1 << 20) == data);
            cookie
        })
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..count));
    server.stop();
}

#[test]
fn short_memory_is_waited_for() {
    // Two clients may hold more than the worker has; what is missing comes back when they read.
    let wanted = Wanted {
        workers: 1,
        memory_bytes: 8 << 20,
        max_payload_bytes: 1 << 20,
        quota_bytes: 64 << 20,
        ..Wanted::default()
    };
    let server = Server::with(Memory::new(SIZE_BYTES), &wanted);
    let data = pattern(4, 1 << 20);
    assert_eq!(server.client().write_at(0, &data), 0);
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = server.client();
            let data = &data;
            scope.spawn(move || {
                let mut stream = client.stream.try_clone().unwrap();
                scope.spawn(move || {
                    for cookie in 0..20 {
                        stream.write_all(&request(cookie, READ, 0, 0, 1 << 20)).unwrap();
                        let write = write_request(100 + cookie, 0, 32 << 20, &data[..65536]);
                        stream.write_all(&write).unwrap();
                    }
                });
                let mut left = 40;
                while left > 0 {
                    let (cookie, error) = client.reply();
                    assert_eq!(error, 0);
                    assert!(cookie >= 100 || client.read(1 << 20) == *data);
                    left -= 1;
                }
            });
        }
    });
    server.stop();
}

#[test]
fn trims_with_fua_are_flushed() {
    let (server, gate) = Server::gated();
    gate.open();
    let mut client = server.client();
    assert_eq!(client.ask(TRIM, 0, 0, 1 << 20), 0);
    assert_eq!(gate.flushed(), 0);
    assert_eq!(client.ask(TRIM, FUA, 0, 1 << 20), 0);
    assert_eq!(gate.flushed(), 1);
    server.stop();
}

#[test]
fn a_device_that_fails_is_told_of() {
    let device = Gated::broken(SIZE_BYTES, Gate::default());
    let server = Server::with(device, &Wanted::default());
    let mut client = server.client();
    assert_eq!(client.ask(READ, 0, 0, 4096), EIO);
    assert_eq!(client.write_at(0, &[1; 4096]), EIO);
    assert_eq!(client.ask(TRIM, FUA, 0, 4096), EIO);
    let mut client = Client::connect(&server.path);
    client.greet();
    client.go_structured("gold");
    client.write(&request(9, READ, 0, 0, 4096));
    let chunk = client.chunk();
    assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (1, 0x8001, 9));
    assert_eq!(chunk.data[..4], EIO.to_be_bytes());
    // Its disk cannot be flushed, so the server does not stop well, which is not the point here.
}

#[test]
fn block_status_tells_what_is_allocated() {
    let server = Server::start();
    let mut client = Client::connect(&server.path);
    client.greet();
    client.go_structured("gold");
    client.write(&write_request(1, 0, 1 << 20, &pattern(1, 64 << 10)));
    assert_eq!(client.reply(), (1, 0));
    let mut ask = |flags, offset, len| {
        client.write(&request(2, BLOCK_STATUS, flags, offset, len));
        let chunk = client.chunk();
        assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (1, 5, 2));
        let field = |at: usize| u32::from_be_bytes(chunk.data[at..at + 4].try_into().unwrap());
        assert_eq!(field(0), 1, "the context that was selected");
        let extents = (4..chunk.data.len()).step_by(8).map(|at| (field(at), field(at + 4)));
        extents.collect::<Vec<_>>()
    };
    assert_eq!(ask(0, 0, 2 << 20), [(1 << 20, 3), (64 << 10, 0), ((1 << 20) - (64 << 10), 3)]);
    assert_eq!(ask(REQ_ONE, 0, 2 << 20), [(1 << 20, 3)]);
    assert_eq!(ask(0, (1 << 20) + 512, 512), [(512, 0)]);
    client.write(&request(3, READ, 0, 1 << 20, 512));
    let chunk = client.chunk();
    assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (1, 1, 3));
    assert_eq!(chunk.data[..8], (1_u64 << 20).to_be_bytes());
    assert!(chunk.data[8..] == pattern(1, 64 << 10)[..512]);
    server.stop();
}

/// A client that is still sending does not expect its answer: libnbd hangs up over it.
#[test]
fn a_refusal_follows_the_whole_request() {
    let server = Server::start();
    let mut client = server.client();
    let (first, rest) = (vec![1; 4096], vec![1; 5 << 20]);
    client.write(&request(1, WRITE, 0, 1, (first.len() + rest.len()) as u32));
    client.write(&first);
    assert!(client.is_silent_for(Duration::from_millis(100)), "answered before its payload came");
    client.write(&rest);
    assert_eq!(client.reply(), (1, EINVAL));
    server.stop();
}
