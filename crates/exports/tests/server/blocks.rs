//! Requests that cover logical blocks in part, on a device with blocks of 4096 bytes.

use std::thread;
use std::time::Duration;

use blkmq_core::Op;
use blkmq_drivers::{Device, File, FileOptions, Memory};

use crate::client::{Client, EIO, FLUSH, FUA, READ, TRIM, WRITE_ZEROES, pattern, write_request};
use crate::fixture::{Folder, SIZE_BYTES, Server, Wanted};
use crate::gate::{Gate, Gated};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// How many blocks the racing writers meet in.
const BLOCKS: u64 = 4;
/// The connections that write sectors. Each has two of every block, four apart.
const NEIGHBOURS: u64 = 4;
const ROUNDS: u64 = 60;

fn memory() -> Memory {
    Memory::with_block(SIZE_BYTES, BLOCK as u32)
}

fn file(folder: &Folder) -> File {
    let path = folder.path().join("disk");
    let (size_bytes, logical_block_bytes) = (Some(SIZE_BYTES), Some(BLOCK as u32));
    let options = FileOptions { size_bytes, logical_block_bytes, ..FileOptions::new(path) };
    File::open(&options).unwrap()
}

/// A sector's contents: who wrote it, and his how-many-th write that was.
fn stamp(writer: u64, number: u64) -> Vec<u8> {
    let words = [writer.to_le_bytes(), number.to_le_bytes()].concat();
    words.repeat(SECTOR / words.len())
}

/// Sends a write of one sector to each of a writer's places, all of them at once.
fn write_sectors(client: &mut Client, writer: u64, number: u64) {
    let places: Vec<u64> =
        (0..BLOCKS).flat_map(|block| [8 * block + writer, 8 * block + writer + 4]).collect();
    let requests: Vec<u8> = places
        .iter()
        .flat_map(|sector| {
            let flags = if sector % 3 == 0 { FUA } else { 0 };
            write_request(*sector, flags, sector * SECTOR as u64, &stamp(writer, number))
        })
        .collect();
    client.write(&requests);
    for _ in places {
        assert_eq!(client.reply().1, 0);
    }
}

fn neighbours_lose_nothing(device: impl Device, workers: u16) {
    let server = Server::with(device, &Wanted { workers, ..Wanted::default() });
    thread::scope(|scope| {
        for writer in 0..NEIGHBOURS {
            let mut client = server.client();
            scope.spawn(move || {
                for number in 1..=ROUNDS {
                    write_sectors(&mut client, writer, number);
                    let own = writer * SECTOR as u64;
                    let read = client.read_at(own, SECTOR as u32);
                    assert!(read == stamp(writer, number), "writer {writer} reads what it wrote");
                }
            });
        }
    });
    let found = server.client().read_at(0, (BLOCKS as usize * BLOCK) as u32);
    for (sector, bytes) in found.chunks(SECTOR).enumerate() {
        let writer = sector as u64 % NEIGHBOURS;
        assert!(bytes == stamp(writer, ROUNDS), "sector {sector} has lost a write");
    }
    server.stop();
}

#[test]
fn sectors_of_one_block_written_over_four_connections_lose_nothing() {
    for workers in [1, 2] {
        neighbours_lose_nothing(memory(), workers);
    }
}

#[test]
fn sectors_of_one_block_in_a_file_lose_nothing() {
    let folder = Folder::new();
    neighbours_lose_nothing(file(&folder), 2);
}

#[test]
fn each_sector_holds_the_last_word_of_somebody() {
    // Two write whole blocks beside the four that write sectors.
    let server = Server::with(memory(), &Wanted::default());
    for round in 1..=ROUNDS {
        let number = round * 10;
        thread::scope(|scope| {
            for writer in 0..NEIGHBOURS {
                let mut client = server.client();
                scope.spawn(move || {
                    write_sectors(&mut client, writer, number);
                    write_sectors(&mut client, writer, number + 1);
                });
            }
            for writer in [8, 9] {
                let mut client = server.client();
                scope.spawn(move || {
                    for number in [number, number + 1] {
                        let data = stamp(writer, number).repeat(BLOCKS as usize * 8);
                        assert_eq!(client.write_at(0, &data), 0);
                    }
                });
            }
        });
        let found = server.client().read_at(0, (BLOCKS as usize * BLOCK) as u32);
        for (sector, bytes) in found.chunks(SECTOR).enumerate() {
            let own = sector as u64 % NEIGHBOURS;
            let is_right = [own, 8, 9].iter().any(|who| bytes == stamp(*who, number + 1));
            let head = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
            assert!(is_right, "sector {sector}: write {head} of {} came back", bytes[0]);
        }
    }
    server.stop();
}

/// Every operation, at every alignment, against a copy in memory.
#[test]
fn parts_of_blocks_do_what_was_asked_and_touch_nothing_else() {
    let folder = Folder::new();
    for server in [
        Server::with(memory(), &Wanted::default()),
        Server::with(file(&folder), &Wanted::default()),
    ] {
        let mut client = server.client();
        let mut copy = pattern(1, 8 * BLOCK);
        assert_eq!(client.write_at(0, &copy), 0);
        for start in 0..9_usize {
            for len in (1..20_usize).chain([40]) {
                let range = start * SECTOR..(start + len) * SECTOR;
                let (at, len_bytes) = (range.start as u64, range.len() as u32);
                assert!(client.read_at(at, len_bytes) == copy[range.clone()], "{range:?}");
                let flags = if len % 2 == 0 { FUA } else { 0 };
                if (start + len) % 3 == 0 {
                    assert_eq!(client.ask(WRITE_ZEROES, flags, at, len_bytes), 0);
                    copy[range].fill(0);
                } else {
                    let data = pattern((start * 100 + len) as u64, range.len());
                    client.write(&write_request(5, flags, at, &data));
                    assert_eq!(client.reply(), (5, 0));
                    copy[range].copy_from_slice(&data);
                }
                assert!(client.read_at(0, copy.len() as u32) == copy, "{start} {len}");
            }
        }
        server.stop();
    }
}

#[test]
fn a_discard_leaves_the_rest_of_a_block_alone() {
    let server = Server::with(memory(), &Wanted::default());
    let mut client = server.client();
    let data = pattern(2, 3 * BLOCK);
    assert_eq!(client.write_at(0, &data), 0);
    assert_eq!(client.ask(TRIM, FUA, SECTOR as u64, SECTOR as u32), 0);
    assert!(client.read_at(0, data.len() as u32) == data, "no whole block was in it");
    assert_eq!(client.ask(TRIM, 0, SECTOR as u64, 2 * BLOCK as u32), 0);
    let found = client.read_at(0, data.len() as u32);
    assert!(found[..BLOCK] == data[..BLOCK] && found[2 * BLOCK..] == data[2 * BLOCK..]);
    assert!(found[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 0));
    server.stop();
}

#[test]
fn a_block_that_cannot_be_read_is_not_written_and_not_kept() {
    let device = Gated::failing(memory(), Gate::default(), |op| op == Op::Read);
    let gate = device.gate().clone();
    gate.open();
    let server = Server::with(device, &Wanted::default());
    let mut client = server.client();
    for _ in 0..3 {
        let before = gate.arrived();
        assert_eq!(client.write_at(SECTOR as u64, &[1; SECTOR]), EIO);
        assert_eq!(gate.arrived(), before + 1, "the read came, and no write");
        assert_eq!(client.write_at(SECTOR as u64, &[1; 4 * BLOCK]), EIO);
        assert_eq!(gate.arrived(), before + 3, "both edges were read");
        assert_eq!(client.ask(READ, 0, 0, SECTOR as u32), EIO);
    }
    // The blocks are free again: for those who write them whole, and for others.
    assert_eq!(client.write_at(0, &[1; BLOCK]), 0);
    assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
    server.stop();
}

#[test]
fn a_stop_waits_for_those_who_wait_for_each_other() {
    let gate = Gate::default();
    let device = Gated::failing(memory(), gate.clone(), |_| false);
    let server = Server::with(device, &Wanted::default());
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for (place, client) in clients.iter_mut().enumerate() {
        let at = (place * SECTOR) as u64;
        client.write(&write_request(1, 0, at, &stamp(place as u64, 1)));
        client.write(&write_request(2, FUA, at, &stamp(place as u64, 2)));
    }
    // One of the eight has the block; the others wait for it.
    gate.await_arrival(1);
    let opener = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        let arrived = gate.arrived();
        gate.open();
        arrived
    });
    let path = server.path.clone();
    server.stop();
    assert_eq!(opener.join().unwrap(), 1, "nobody else went to the device");
    for client in &mut clients {
        let rest = client.rest();
        assert!(rest.len() % 16 == 0 && rest.chunks(16).all(|reply| reply[4..8] == [0; 4]));
    }
    assert!(!path.exists());
}
