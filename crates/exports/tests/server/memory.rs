//! Memory that some hold does not keep others from theirs.

use std::time::{Duration, Instant};

use crate::client::{Client, READ, request, write_request};
use crate::fixture::{SIZE_BYTES, Server, Wanted};
use crate::gate::await_that;
use blkmq_drivers::Memory;

const OWN_BYTES: usize = 64 << 10;

/// One worker with little memory, of which each client is promised some.
fn server(stuck_timeout: Duration) -> Server {
    let wanted = Wanted {
        workers: 1,
        memory_bytes: 32 << 20,
        max_payload_bytes: 4 << 20,
        quota_bytes: 4 << 20,
        own_bytes: OWN_BYTES,
        stuck_timeout,
        max_connections: 32,
        ..Wanted::default()
    };
    Server::with(Memory::new(SIZE_BYTES), &wanted)
}

/// A client that asks for so much in quarters of a megabyte, and reads nothing.
fn stalled(server: &Server, quarters: u64) -> Client {
    let mut client = server.client();
    let requests: Vec<u8> =
        (0..quarters).flat_map(|cookie| request(cookie, READ, 0, 0, 256 << 10)).collect();
    client.write(&requests);
    client
}

#[test]
fn what_is_promised_can_be_had_beside_a_crowd_that_holds_the_rest() {
    let server = server(Duration::from_secs(60));
    let mut hoarders: Vec<Client> = (0..10).map(|_| stalled(&server, 1000)).collect();
    // Long writes take all that there is for long buffers.
    for hoarder in 0..5_u64 {
        let mut client = server.client();
        client.write(&write_request(hoarder, 0, 0, &vec![0; 4 << 20])[..100]);
        hoarders.push(client);
    }
    let mut tenant = server.client();
    let start = Instant::now();
    for round in 0..100_u64 {
        assert_eq!(tenant.write_at(round << 16, &vec![round as u8; OWN_BYTES]), 0);
        assert!(tenant.read_at(round << 16, OWN_BYTES as u32) == vec![round as u8; OWN_BYTES]);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(hoarders);
    // And what they held is there again.
    assert_eq!(tenant.write_at(0, &vec![9; 4 << 20]), 0);
    server.stop();
}

#[test]
fn who_reads_no_replies_is_disconnected_once_others_wait() {
    let server = server(Duration::from_millis(300));
    let hoarders: Vec<Client> = (0..10).map(|_| stalled(&server, 1000)).collect();
    let mut tenant = server.client();
    // More than is promised, and all of the rest is held.
    let start = Instant::now();
    assert_eq!(tenant.read_at(0, 1 << 20).len(), 1 << 20);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // Not before the memory had come back from somebody.
    await_that(|| server.config.places.taken() < 11);
    drop(hoarders);
    server.stop();
}

#[test]
fn who_reads_slowly_stays_as_long_as_nobody_waits() {
    let server = server(Duration::from_millis(100));
    let mut slow = stalled(&server, 1000);
    std::thread::sleep(Duration::from_millis(1500));
    let mut tenant = server.client();
    assert_eq!(tenant.read_at(0, 1 << 20).len(), 1 << 20);
    for _ in 0..1000 {
        assert_eq!(slow.reply().1, 0);
        assert_eq!(slow.read(256 << 10).len(), 256 << 10);
    }
    server.stop();
}

#[test]
fn who_leaves_without_what_he_waited_for_holds_up_nobody() {
    let server = server(Duration::from_secs(60));
    // All but three quarters of what is for all in short buffers: 9 megabytes.
    let hoarders = [16, 16, 1].map(|quarters| stalled(&server, quarters));
    std::thread::sleep(Duration::from_millis(100));
    let (mut first, mut second) = (server.client(), server.client());
    first.write(&request(1, READ, 0, 0, 1 << 20));
    std::thread::sleep(Duration::from_millis(50));
    second.write(&request(2, READ, 0, 0, 128 << 10));
    std::thread::sleep(Duration::from_millis(50));
    // There is enough for the second, who does not overtake; and no memory comes back.
    drop(first);
    assert_eq!(second.reply(), (2, 0));
    assert_eq!(second.read(128 << 10).len(), 128 << 10);
    drop(hoarders);
    server.stop();
}

#[test]
fn who_trickles_a_payload_is_disconnected_once_others_wait() {
    let server = server(Duration::from_millis(300));
    let hoarders: Vec<Client> = (0..5_u64)
        .map(|hoarder| {
            let mut client = server.client();
            client.write(&write_request(hoarder, 0, 0, &vec![0; 4 << 20])[..100]);
            client
        })
        .collect();
    let mut tenant = server.client();
    let start = Instant::now();
    assert_eq!(tenant.read_at(0, 4 << 20).len(), 4 << 20);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(hoarders);
    server.stop();
}
