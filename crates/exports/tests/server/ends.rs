//! How connections end, and whom that disturbs.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{
    Client, DISC, FLUSH, READ, WRITE, option_bytes, pattern, request, write_request,
};
use crate::fixture::{SIZE_BYTES, Server, Wanted};
use crate::gate::await_that;
use blkmq_drivers::Memory;
use blkmq_exports::nbd::server::ListenAddress;

const LIST: u32 = 3;
const SHUTDOWN: u32 = 0x8000_0007;

/// Waits until the server has this many clients.
fn await_clients(server: &Server, count: usize) {
    await_that(|| server.config.places.taken() == count);
}

#[test]
fn a_client_may_die_at_any_step() {
    // Places for all, since those who died may not have been noticed when the next one comes.
    let wanted = Wanted { max_connections: 200, ..Wanted::default() };
    let server = Server::with(Memory::new(SIZE_BYTES), &wanted);
    let mut bystander = server.client();
    assert_eq!(bystander.write_at(0, &pattern(1, 65536)), 0);
    // The whole life of a client, cut off after each of its steps, and within them.
    let go = option_bytes(7, &[&4_u32.to_be_bytes()[..], b"gold", &[0, 0]].concat());
    let steps = [
        3_u32.to_be_bytes().to_vec(),
        go,
        write_request(1, 0, 1 << 20, &pattern(2, 8192)),
        request(2, READ, 0, 0, 1 << 20),
        request(3, FLUSH, 0, 0, 0),
        write_request(4, 0, 1 << 20, &[0; 512])[..20].to_vec(),
    ];
    let life = steps.concat();
    for end in (0..life.len()).step_by(97).chain([life.len()]) {
        let mut client = Client::connect(&server.path);
        client.write(&life[..end]);
        drop(client);
        assert!(bystander.read_at(0, 65536) == pattern(1, 65536));
    }
    await_clients(&server, 1);
    server.stop();
}

#[test]
fn what_a_dead_client_had_in_flight_is_awaited() {
    let (server, gate) = Server::gated();
    let mut client = server.client();
    for cookie in 0..10 {
        client.write(&request(cookie, READ, 0, 0, 65536));
        client.write(&write_request(100 + cookie, 0, cookie << 20, &pattern(cookie, 65536)));
    }
    gate.await_arrival(20);
    drop(client);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(server.config.places.taken(), 1, "its memory is in the device's hands");
    gate.open();
    await_clients(&server, 0);
    // What had come whole was accepted.
    assert!(server.client().read_at(9 << 20, 65536) == pattern(9, 65536));
    server.stop();
}

#[test]
fn who_takes_leave_gets_the_last_replies() {
    let (mut server, gate) = Server::gated();
    let tcp = server.listen(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    let ListenAddress::Tcp(at) = tcp else { panic!("it listens at {tcp}") };
    let mut unix = server.client();
    let mut tcp = Client::enter_tcp(at.port(), "gold");
    let mut bytes = Vec::new();
    for cookie in 0..100 {
        bytes.extend(request(cookie, READ, 0, 0, 8192));
    }
    bytes.extend(request(0, DISC, 0, 0, 0));
    // What follows a leave has no meaning and gets no answer.
    bytes.extend(request(1000, READ, 0, 0, 8192));
    unix.write(&bytes);
    tcp.write(&bytes);
    gate.await_arrival(200);
    gate.open();
    assert_eq!(unix.rest().len(), 100 * (16 + 8192));
    assert_eq!(tcp.rest().len(), 100 * (16 + 8192));
    assert_eq!(gate.arrived(), 200);
    server.stop();
}

#[test]
fn who_breaks_the_protocol_is_disconnected() {
    let server = Server::start();
    let mut bystander = server.client();
    let mut client = server.client();
    client.write(&[0; 28]);
    assert!(client.is_closed());
    let mut client = server.client();
    client.write(&request(1, WRITE, 0, 0, u32::MAX));
    assert!(client.is_closed());
    let mut client = Client::connect(&server.path);
    client.greet();
    client.write(b"GET / HTTP/1.1\r\n\r\n");
    assert!(client.is_closed());
    assert_eq!(bystander.ask(FLUSH, 0, 0, 0), 0);
    server.stop();
}

#[test]
fn half_a_handshake_and_half_a_request_are_given_up_in_time() {
    let wanted = Wanted { handshake_timeout: Duration::from_millis(300), ..Wanted::default() };
    let server = Server::with(Memory::new(SIZE_BYTES), &wanted);
    let mut patient = server.client();
    let begin = Instant::now();
    let mut silent = Client::connect(&server.path);
    silent.greet();
    let mut header = server.client();
    header.write(&request(1, READ, 0, 0, 512)[..27]);
    let mut payload = server.client();
    payload.write(&write_request(1, 0, 0, &[1; 4096])[..1000]);
    for client in [&mut silent, &mut header, &mut payload] {
        assert!(client.is_closed());
    }
    assert!(begin.elapsed() >= Duration::from_millis(290));
    assert!(begin.elapsed() < Duration::from_secs(5));
    // Between requests nobody is hurried, and neither is who sends many slowly.
    thread::sleep(Duration::from_millis(400));
    for cookie in 0..8 {
        let bytes = request(cookie, FLUSH, 0, 0, 0);
        patient.write(&bytes[..14]);
        thread::sleep(Duration::from_millis(60));
        patient.write(&bytes[14..]);
        assert_eq!(patient.reply(), (cookie, 0));
    }
    server.stop();
}

#[test]
fn a_stop_finishes_what_was_accepted() {
    let (mut server, gate) = Server::gated();
    let tcp = server.listen(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    let ListenAddress::Tcp(at) = tcp else { panic!("it listens at {tcp}") };
    let mut unix = server.client();
    let mut tcp = Client::enter_tcp(at.port(), "gold");
    let mut idle = server.client();
    let mut shaking = Client::connect(&server.path);
    shaking.greet();
    let mut bytes = Vec::new();
    for cookie in 0..50 {
        // With a gap between them, so that none is merged with another.
        bytes.extend(write_request(cookie, 0, cookie << 17, &pattern(cookie, 65536)));
    }
    // The last write misses a byte, and so was not accepted.
    bytes.extend(write_request(99, 0, 0, &[1; 4096]));
    bytes.pop();
    thread::scope(|scope| {
        scope.spawn(|| unix.write(&bytes));
        scope.spawn(|| tcp.write(&bytes));
        gate.await_arrival(100);
    });
    let stop = thread::spawn(move || server.stop());
    assert!(idle.is_closed(), "who asked for nothing is let go at once");
    // The server cannot be waited for here, so it is asked until it answers as one that stops.
    // Its worker may hear of the stop a little later than that of the idle client.
    await_that(|| shaking.option(LIST, &[]).last().unwrap().0 == SHUTDOWN);
    assert!(shaking.is_closed());
    gate.open();
    for rest in [unix.rest(), tcp.rest()] {
        assert_eq!(rest.len(), 50 * 16);
        let mut cookies: Vec<u8> = rest.chunks(16).map(|reply| reply[15]).collect();
        cookies.sort_unstable();
        assert!(cookies.into_iter().eq(0..50));
    }
    stop.join().unwrap();
}

#[test]
fn a_stop_does_not_wait_for_requests_that_have_no_room() {
    let (server, gate) = Server::gated();
    let mut client = server.client();
    let requests: Vec<u8> = (0..1000).flat_map(|cookie| request(cookie, READ, 0, 0, 512)).collect();
    client.write(&requests);
    gate.await_arrival(128);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(gate.arrived(), 128, "a connection has no more in flight");
    let stop = thread::spawn(move || server.stop());
    thread::sleep(Duration::from_millis(50));
    gate.open();
    assert_eq!(client.rest().len(), 128 * (16 + 512));
    stop.join().unwrap();
}

#[test]
fn who_shuts_its_sending_side_counts_as_gone() {
    let server = Server::start();
    let mut client = server.client();
    client.close_writing();
    assert!(client.is_closed());
    await_clients(&server, 0);
    server.stop();
}
