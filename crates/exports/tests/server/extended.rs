//! Extended headers, and what else the protocol has beyond its baseline, over a socket.

use blkmq_drivers::{Memory, Null};

use crate::client::{
    BLOCK_STATUS, CACHE, Client, DISC, EINVAL, ENOTSUP, FAST_ZERO, FLUSH, FUA, NO_HOLE,
    PAYLOAD_LEN, READ, REQ_ONE, TRIM, WRITE, WRITE_ZEROES, extended, pattern,
};
use crate::fixture::{SIZE_BYTES, Server, Wanted};

fn enter(server: &Server) -> Client {
    let mut client = Client::connect(&server.path);
    client.greet();
    client.go_extended("gold");
    client
}

/// Asks without a payload. What the one chunk says: its type and its data.
fn ask(client: &mut Client, kind: u16, flags: u16, offset: u64, len: u64) -> (u16, Vec<u8>) {
    client.write(&extended(7, kind, flags, offset, len));
    answer(client, offset)
}

fn answer(client: &mut Client, offset: u64) -> (u16, Vec<u8>) {
    let (chunk, repeated) = client.extended_chunk();
    assert_eq!((chunk.flags, chunk.cookie, repeated), (1, 7, offset));
    (chunk.kind, chunk.data)
}

fn done() -> (u16, Vec<u8>) {
    (0, Vec::new())
}

/// The error of a refusal or a failure.
fn error((kind, data): (u16, Vec<u8>)) -> u32 {
    assert_eq!(kind, 0x8001, "{data:?}");
    u32::from_be_bytes(data[..4].try_into().unwrap())
}

#[test]
fn every_command_is_served() {
    let server = Server::start();
    let mut client = enter(&server);
    let data = pattern(1, 1 << 20);
    client.write(&extended(7, WRITE, PAYLOAD_LEN | FUA, 4096, 1 << 20));
    client.write(&data);
    assert_eq!(answer(&mut client, 4096), done());
    assert_eq!(ask(&mut client, FLUSH, 0, 0, 0), done());
    assert_eq!(ask(&mut client, CACHE, 0, 4096, SIZE_BYTES - 4096), done());
    let (kind, read) = ask(&mut client, READ, 0, 8192, 65536);
    assert_eq!((kind, &read[..8]), (1, &8192_u64.to_be_bytes()[..]));
    assert!(read[8..] == data[4096..4096 + 65536]);
    assert_eq!(ask(&mut client, WRITE_ZEROES, FUA, 0, SIZE_BYTES), done());
    assert!(ask(&mut client, READ, 0, 8192, 4096).1[8..].iter().all(|byte| *byte == 0));
    assert_eq!(ask(&mut client, TRIM, FUA, 0, SIZE_BYTES), done());
    assert_eq!(error(ask(&mut client, TRIM, 0, 0, 1 << 40)), EINVAL);
    client.write(&extended(7, DISC, 0, 0, 0));
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn block_status_is_told_in_64_bits_and_filtered() {
    let server = Server::start();
    let mut client = enter(&server);
    client.write(&extended(7, WRITE, PAYLOAD_LEN, 1 << 20, 65536));
    client.write(&pattern(1, 65536));
    assert_eq!(answer(&mut client, 1 << 20), done());
    let told = |(kind, data): (u16, Vec<u8>)| {
        assert_eq!((kind, &data[..4]), (6, &1_u32.to_be_bytes()[..]));
        let field = |at: usize| u64::from_be_bytes(data[at..at + 8].try_into().unwrap());
        let extents: Vec<_> =
            (8..data.len()).step_by(16).map(|at| (field(at), field(at + 8))).collect();
        assert_eq!(data[4..8], u32::try_from(extents.len()).unwrap().to_be_bytes());
        extents
    };
    let rest = SIZE_BYTES - (1 << 20) - 65536;
    let whole = [(1 << 20, 3), (65536, 0), (rest, 3)];
    assert_eq!(told(ask(&mut client, BLOCK_STATUS, 0, 0, SIZE_BYTES)), whole);
    assert_eq!(told(ask(&mut client, BLOCK_STATUS, REQ_ONE, 0, SIZE_BYTES)), whole[..1]);
    for (context, flags) in [(1_u32, 0), (1, REQ_ONE), (2, 0)] {
        client.write(&extended(7, BLOCK_STATUS, flags | PAYLOAD_LEN, 0, 12));
        client.write(&SIZE_BYTES.to_be_bytes());
        client.write(&context.to_be_bytes());
        let answer = answer(&mut client, 0);
        match (context, flags) {
            (1, 0) => assert_eq!(told(answer), whole),
            (1, _) => assert_eq!(told(answer), whole[..1]),
            _ => assert_eq!(error(answer), EINVAL),
        }
    }
    server.stop();
}

/// More than the layer can be asked for at once.
#[test]
fn lengths_go_beyond_32_bits_of_sectors() {
    let size_bytes = 5 << 40;
    let wanted = Wanted { size_bytes, ..Wanted::default() };
    let server = Server::with(Null::new(size_bytes), &wanted);
    let mut client = enter(&server);
    assert_eq!(ask(&mut client, WRITE_ZEROES, 0, 4096, size_bytes - 4096), done());
    assert_eq!(ask(&mut client, TRIM, FUA, 0, size_bytes), done());
    let (kind, data) = ask(&mut client, BLOCK_STATUS, 0, 0, size_bytes);
    assert_eq!((kind, &data[8..16]), (6, &size_bytes.to_be_bytes()[..]));
    server.stop();
}

/// What the device can only do by writing as much is refused to who asks for a fast way.
#[test]
fn fast_zeroes_fail_rather_than_be_slow() {
    let wanted = Wanted::default();
    let server = Server::with(Memory::with_block(SIZE_BYTES, 4096), &wanted);
    let mut client = enter(&server);
    client.write(&extended(7, WRITE, PAYLOAD_LEN, 0, 65536));
    client.write(&pattern(1, 65536));
    assert_eq!(answer(&mut client, 0), done());

    assert_eq!(ask(&mut client, WRITE_ZEROES, FAST_ZERO, 4096, 4096), done());
    let slow = [(FAST_ZERO | NO_HOLE, 8192, 4096), (FAST_ZERO, 8192, 512), (FAST_ZERO, 512, 8192)];
    for (flags, offset, len) in slow {
        let refused = ask(&mut client, WRITE_ZEROES, flags, offset, len);
        assert_eq!(error(refused), ENOTSUP, "{flags} at {offset}");
        // Without the flag nothing is refused for being slow.
        let flags = flags & !FAST_ZERO;
        assert_eq!(ask(&mut client, WRITE_ZEROES, flags, offset + 65536, len), done());
    }
    let (_, read) = ask(&mut client, READ, 0, 0, 65536);
    let mut expected = pattern(1, 65536);
    expected[4096..8192].fill(0);
    assert!(read[8..] == expected, "what was refused has changed nothing");
    server.stop();
}

/// Who was there before keeps the size it was told, and is kept within the one of the moment.
#[test]
fn a_size_changes_for_those_who_come_after() {
    let server = Server::start();
    let mut before = enter(&server);
    let short = SIZE_BYTES / 2;
    server.resize(short);
    let mut after = Client::connect(&server.path);
    after.greet();
    let replies = after.go("gold");
    assert_eq!(replies[0].1[2..10], short.to_be_bytes());
    let beyond = [READ, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS];
    for kind in beyond {
        assert_eq!(ask(&mut before, kind, 0, 0, 4096).0 >> 15, 0, "command {kind}");
        if kind != CACHE {
            assert_eq!(error(ask(&mut before, kind, 0, short, 4096)), EINVAL, "command {kind}");
        }
    }
    server.resize(SIZE_BYTES);
    assert_eq!(ask(&mut before, WRITE_ZEROES, 0, short, 4096), done());
    server.stop();
}
