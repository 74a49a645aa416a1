//! Replies, read back as a client reads them.

use blkmq_core::Status;
use blkmq_exports::nbd::{
    AllocationExtent, Cookie, Errno, Incoming, MAX_STATUS_EXTENTS, Op, ReplyHead, Session, Span,
    Verdict,
};

use crate::client::*;

const COOKIE: Cookie = Cookie { number: 0xfeed_f00d_dead_beef, offset_bytes: 512 };
const DONE: u16 = 1;

/// A chunk of a structured reply, as a client sees it.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    flags: u16,
    kind: u16,
    cookie: u64,
    payload: Vec<u8>,
}

fn simple() -> Session {
    session(export("gold"), Style::Simple, false)
}

fn structured() -> Session {
    session(export("gold"), Style::Structured, true)
}

fn span(session: &Session, offset: u64, len: u32) -> Span {
    let header = request(READ, 0, offset, len);
    match Incoming::new().next(session, &mut &header[..]) {
        Some(Verdict::Serve(command)) => match command.op {
            Op::Read { span, .. } => span,
            op => panic!("{op:?}"),
        },
        verdict => panic!("{verdict:?}"),
    }
}

/// Reads one chunk that is all of head and tail.
fn chunk(head: &ReplyHead, tail: &[u8]) -> Chunk {
    let bytes = [head.as_bytes(), tail].concat();
    assert_eq!(bytes[..4], [0x66, 0x8e, 0x33, 0xef]);
    let len = u32::from_be_bytes(bytes[16..20].try_into().unwrap());
    assert_eq!(bytes.len(), 20 + len as usize);
    Chunk {
        flags: u16::from_be_bytes(bytes[4..6].try_into().unwrap()),
        kind: u16::from_be_bytes(bytes[6..8].try_into().unwrap()),
        cookie: u64::from_be_bytes(bytes[8..16].try_into().unwrap()),
        payload: bytes[20..].to_vec(),
    }
}

fn simple_reply(error: u32) -> Vec<u8> {
    let magic = [0x67, 0x44, 0x66, 0x98];
    [&magic[..], &error.to_be_bytes(), &COOKIE.number.to_be_bytes()].concat()
}

#[test]
fn success_without_data_is_a_simple_reply_in_either_style() {
    for session in [simple(), structured()] {
        assert_eq!(session.done(COOKIE).as_bytes(), simple_reply(0));
    }
}

#[test]
fn a_read_is_a_head_before_its_data() {
    let session = simple();
    assert_eq!(session.data(COOKIE, span(&session, 512, 1024)).as_bytes(), simple_reply(0));

    let session = structured();
    let data = [7; 1024];
    let chunk = chunk(&session.data(COOKIE, span(&session, 512, 1024)), &data);
    let payload = [&512_u64.to_be_bytes()[..], &data].concat();
    assert_eq!(chunk, Chunk { flags: DONE, kind: 1, cookie: COOKIE.number, payload });
}

#[test]
fn a_read_may_be_made_of_parts() {
    let session = structured();
    let chunks = session.structured().unwrap();
    let whole = span(&session, 4096, 8192);
    let data = chunk(&chunks.data(COOKIE, whole.part(0, 4096).unwrap(), false), &[1; 4096]);
    assert_eq!((data.flags, data.kind, data.payload.len()), (0, 1, 8 + 4096));
    for (last, flags) in [(false, 0), (true, DONE)] {
        let hole = chunk(&chunks.hole(COOKIE, whole.part(4096, 4096).unwrap(), last), &[]);
        let payload = [&8192_u64.to_be_bytes()[..], &4096_u32.to_be_bytes()].concat();
        assert_eq!(hole, Chunk { flags, kind: 2, cookie: COOKIE.number, payload });
    }
    let none = chunk(&chunks.none(COOKIE), &[]);
    assert_eq!(none, Chunk { flags: DONE, kind: 0, cookie: COOKIE.number, payload: vec![] });
    assert!(simple().structured().is_none());
}

#[test]
fn the_longest_payload_leaves_room_for_its_offset() {
    let mut large = export("gold");
    large.size_bytes = 1 << 40;
    large.block.max_payload_bytes = 1 << 31;
    let session = session(large, Style::Structured, false);
    let head = session.data(COOKIE, span(&session, 0, 1 << 31));
    assert_eq!(head.as_bytes()[16..20], ((1_u32 << 31) + 8).to_be_bytes());
}

#[test]
fn failures_carry_a_message_where_they_can() {
    let reply = simple().failed(COOKIE, Errno::NoSpc, "full");
    assert_eq!((reply.head.as_bytes(), reply.tail), (&simple_reply(28)[..], &b""[..]));

    let reply = structured().failed(COOKIE, Errno::NoSpc, "full");
    let payload = [&28_u32.to_be_bytes()[..], &4_u16.to_be_bytes(), b"full"].concat();
    let expected = Chunk { flags: DONE, kind: 0x8001, cookie: COOKIE.number, payload };
    assert_eq!(chunk(&reply.head, reply.tail), expected);

    let long = "\u{1F980}x".repeat(2000);
    let reply = structured().failed(COOKIE, Errno::Io, &long);
    let length = u16::try_from(reply.tail.len()).unwrap();
    assert!((4093..=4096).contains(&length), "{length}");
    assert!(std::str::from_utf8(reply.tail).is_ok());
    assert_eq!(chunk(&reply.head, reply.tail).payload[4..6], length.to_be_bytes());
}

#[test]
fn refusals_are_answered_in_the_style_agreed() {
    for (session, magic) in [(simple(), 0x6744_6698_u32), (structured(), 0x668e_33ef)] {
        let stream = [&request(WRITE, 0, 1, 3)[..], &[0; 3]].concat();
        let Some(Verdict::Refuse(refusal)) = Incoming::new().next(&session, &mut &stream[..])
        else {
            panic!("served")
        };
        assert_eq!(refusal.reply(&session).head.as_bytes()[..4], magic.to_be_bytes());
    }
}

#[test]
fn block_status_tells_of_extents() {
    let session = structured();
    let extent = |len_bytes, hole, zero| AllocationExtent { len_bytes, hole, zero };
    let extents = [
        extent(512, false, false),
        extent(1024, true, false),
        extent(2048, false, true),
        extent(u32::MAX.into(), true, true),
    ];
    let mut tail = Vec::new();
    let reply = session.structured().unwrap().block_status(COOKIE, &extents, true, &mut tail);
    let words = [1, 512, 0, 1024, 1, 2048, 2, u32::MAX, 3];
    let payload = words.map(u32::to_be_bytes).concat();
    let expected = Chunk { flags: DONE, kind: 5, cookie: COOKIE.number, payload };
    assert_eq!(chunk(&reply.head, reply.tail), expected);
}

#[test]
#[should_panic(expected = "0 extents")]
fn block_status_tells_of_one_extent_at_least() {
    structured().structured().unwrap().block_status(COOKIE, &[], true, &mut Vec::new());
}

#[test]
#[should_panic(expected = "1048577 extents")]
fn block_status_has_a_limit() {
    let extent = AllocationExtent { len_bytes: 512, hole: false, zero: false };
    let extents = vec![extent; MAX_STATUS_EXTENTS + 1];
    structured().structured().unwrap().block_status(COOKIE, &extents, true, &mut Vec::new());
}

#[test]
fn statuses_are_told_in_the_protocols_numbers() {
    let all = [
        (Status::Ok, None),
        (Status::IoErr, Some(5)),
        (Status::NoSpc, Some(28)),
        (Status::NotSupp, Some(22)),
        (Status::Inval, Some(22)),
        (Status::Offline, Some(5)),
        (Status::ReadOnly, Some(1)),
        (Status::Timeout, Some(5)),
        (Status::Again, Some(5)),
        (Status::DurationLimit, Some(5)),
        (Status::Medium, Some(5)),
        (Status::Protection, Some(5)),
        (Status::ResvConflict, Some(5)),
        (Status::Target, Some(5)),
        (Status::Transport, Some(5)),
        (Status::ZoneActiveResource, Some(5)),
        (Status::ZoneOpenResource, Some(5)),
    ];
    for (status, errno) in all {
        assert_eq!(Errno::from_status(status).map(Errno::to_wire), errno, "{status:?}");
    }
    let others = [Errno::NoMem, Errno::Overflow, Errno::NotSup, Errno::Shutdown];
    assert_eq!(others.map(Errno::to_wire), [12, 75, 95, 108]);
}
