//! The rules that each request is held to.

use blkmq_exports::nbd::{
    BlockSizes, Command, Cookie, Errno, Export, Features, Incoming, MAX_DISCARD_BYTES, Op, Session,
    Span, Verdict, Violation,
};

use crate::client::*;

const BLOCK: u32 = 512;
const MAX: u32 = 1 << 20;
const SIZE: u64 = 1 << 30;

/// What comes of a request, and how much of what follows it was thrown away before.
fn judge(session: &Session, kind: u16, flags: u16, offset: u64, len: u32) -> (Verdict, u32) {
    let header = request(kind, flags, offset, len);
    let mut incoming = Incoming::new();
    match incoming.next(session, &mut &header[..]) {
        Some(verdict) => (verdict, 0),
        None => {
            let payload = incoming.discard_bytes();
            let mut rest = &vec![0; payload as usize][..];
            let verdict = incoming.next(session, &mut rest).expect("its payload has come");
            (verdict, payload)
        }
    }
}

fn check(session: &Session, kind: u16, flags: u16, offset: u64, len: u32) -> Verdict {
    judge(session, kind, flags, offset, len).0
}

fn served(session: &Session, kind: u16, flags: u16, offset: u64, len: u32) -> Op {
    match check(session, kind, flags, offset, len) {
        Verdict::Serve(Command { cookie, op }) => {
            let number = 0x0123_4567_89ab_cdef;
            assert_eq!(cookie, Cookie { number, offset_bytes: offset });
            op
        }
        verdict => panic!("not served but {verdict:?}"),
    }
}

/// The error of a refusal, and how much payload it says to throw away.
fn refused(session: &Session, kind: u16, flags: u16, offset: u64, len: u32) -> (Errno, u32) {
    match judge(session, kind, flags, offset, len) {
        (Verdict::Refuse(refusal), payload) => {
            assert_eq!(refusal.cookie.number, 0x0123_4567_89ab_cdef);
            assert!(!refusal.reason.is_empty());
            (refusal.errno, payload)
        }
        verdict => panic!("not refused but {verdict:?}"),
    }
}

fn full() -> Session {
    session(export("gold"), Style::Structured, true)
}

/// An export that is changed before it is served, with everything agreed.
fn with(change: impl FnOnce(&mut Export)) -> Session {
    let mut export = export("gold");
    change(&mut export);
    session(export, Style::Structured, true)
}

/// Offset and length of the operation's span, if it has one.
fn span_of(op: &Op) -> Option<(u64, u64)> {
    match op {
        Op::Read { span, .. }
        | Op::Write { span, .. }
        | Op::Trim { span, .. }
        | Op::Cache { span }
        | Op::WriteZeroes { span, .. }
        | Op::BlockStatus { span, .. } => Some((span.offset_bytes(), span.len_bytes())),
        Op::Flush => None,
    }
}

#[test]
fn every_command_is_served() {
    let gold = full();
    assert!(matches!(served(&gold, READ, 0, 0, BLOCK), Op::Read { one_chunk: false, .. }));
    assert!(matches!(served(&gold, READ, DF, 0, BLOCK), Op::Read { one_chunk: true, .. }));
    assert!(matches!(served(&gold, WRITE, 0, 0, BLOCK), Op::Write { fua: false, .. }));
    assert!(matches!(served(&gold, WRITE, FUA, 0, BLOCK), Op::Write { fua: true, .. }));
    assert_eq!(served(&gold, FLUSH, 0, 0, 0), Op::Flush);
    assert!(matches!(served(&gold, TRIM, 0, 0, BLOCK), Op::Trim { fua: false, .. }));
    assert!(matches!(served(&gold, TRIM, FUA, 0, BLOCK), Op::Trim { fua: true, .. }));
    assert!(matches!(served(&gold, CACHE, 0, 0, BLOCK), Op::Cache { .. }));
    for flags in 0..8 {
        let (fua, no_hole, fast) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
        let flags = flag(fua, FUA) | flag(no_hole, NO_HOLE) | flag(fast, FAST_ZERO);
        let op = served(&gold, WRITE_ZEROES, flags, 0, BLOCK);
        let Op::WriteZeroes { span, .. } = op else { panic!("{op:?}") };
        assert_eq!(op, Op::WriteZeroes { span, fua, no_hole, fast });
    }
    for (flags, expected) in [(0, false), (REQ_ONE, true)] {
        let op = served(&gold, BLOCK_STATUS, flags, 0, BLOCK);
        assert!(matches!(op, Op::BlockStatus { one_extent, .. } if one_extent == expected));
    }
    for kind in [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] {
        let op = served(&gold, kind, 0, 4096, 1024);
        assert_eq!(span_of(&op), Some((4096, 1024)));
    }
    assert_eq!(check(&gold, DISC, 0, 0, 0), Verdict::Disconnect);
    assert_eq!(check(&gold, DISC, 0xffff, 1, 1), Verdict::Disconnect, "nobody reads an answer");
}

#[test]
fn unknown_commands_are_invalid_and_have_no_payload() {
    for kind in [8, 9, u16::MAX] {
        assert_eq!(refused(&full(), kind, 0, 0, BLOCK), (Errno::Inval, 0));
    }
}

#[test]
fn flags_fit_their_command() {
    let gold = full();
    let all = [
        (READ, FUA | DF),
        (WRITE, FUA),
        (FLUSH, FUA),
        (TRIM, FUA),
        (CACHE, FUA),
        (WRITE_ZEROES, FUA | NO_HOLE | FAST_ZERO),
        (BLOCK_STATUS, FUA | REQ_ONE),
    ];
    for (kind, valid) in all {
        let len = if kind == FLUSH { 0 } else { BLOCK };
        for bit in (0..16).map(|shift| 1_u16 << shift) {
            let verdict = check(&gold, kind, bit, 0, len);
            let is_served = matches!(verdict, Verdict::Serve(_));
            assert_eq!(is_served, valid & bit != 0, "command {kind}, flag {bit}: {verdict:?}");
            if !is_served {
                let payload = if kind == WRITE { len } else { 0 };
                assert_eq!(refused(&gold, kind, bit, 0, len), (Errno::Inval, payload));
            }
        }
    }
}

#[test]
fn what_was_not_agreed_is_invalid() {
    let simple = session(export("gold"), Style::Simple, false);
    assert_eq!(refused(&simple, READ, DF, 0, BLOCK), (Errno::Inval, 0));
    assert_eq!(refused(&simple, BLOCK_STATUS, 0, 0, BLOCK), (Errno::Inval, 0));
    let structured = session(export("gold"), Style::Structured, false);
    assert_eq!(refused(&structured, BLOCK_STATUS, 0, 0, BLOCK), (Errno::Inval, 0));
    served(&structured, READ, DF, 0, BLOCK);

    let bare =
        with(|export| export.features = Features { block_status: true, ..Default::default() });
    served(&bare, READ, 0, 0, BLOCK);
    served(&bare, WRITE, 0, 0, BLOCK);
    assert_eq!(refused(&bare, WRITE, FUA, 0, BLOCK), (Errno::Inval, BLOCK));
    assert_eq!(refused(&bare, READ, FUA, 0, BLOCK), (Errno::Inval, 0));
    assert_eq!(refused(&bare, FLUSH, 0, 0, 0), (Errno::Inval, 0));
    assert_eq!(refused(&bare, TRIM, 0, 0, BLOCK), (Errno::Inval, 0));
    assert_eq!(refused(&bare, WRITE_ZEROES, 0, 0, BLOCK), (Errno::Inval, 0));
}

#[test]
fn a_flush_has_no_place() {
    assert_eq!(refused(&full(), FLUSH, 0, 512, 0), (Errno::Inval, 0));
    assert_eq!(refused(&full(), FLUSH, 0, 0, 512), (Errno::Inval, 0));
}

#[test]
fn read_only_refuses_what_writes() {
    let bronze = with(|export| export.features.read_only = true);
    assert_eq!(refused(&bronze, WRITE, 0, 0, BLOCK), (Errno::Perm, BLOCK));
    assert_eq!(refused(&bronze, WRITE, 0, SIZE, BLOCK), (Errno::Perm, BLOCK));
    assert_eq!(refused(&bronze, TRIM, 0, 0, BLOCK), (Errno::Perm, 0));
    assert_eq!(refused(&bronze, WRITE_ZEROES, 0, 0, BLOCK), (Errno::Perm, 0));
    served(&bronze, READ, 0, 0, BLOCK);
    served(&bronze, FLUSH, 0, 0, 0);
    served(&bronze, BLOCK_STATUS, 0, 0, BLOCK);
}

#[test]
fn nothing_goes_beyond_the_end() {
    let gold = full();
    let all = [
        (READ, Errno::Inval),
        (WRITE, Errno::NoSpc),
        (TRIM, Errno::Inval),
        (CACHE, Errno::Inval),
        (WRITE_ZEROES, Errno::NoSpc),
        (BLOCK_STATUS, Errno::Inval),
    ];
    for (kind, errno) in all {
        let end = SIZE - u64::from(BLOCK);
        assert_eq!(span_of(&served(&gold, kind, 0, end, BLOCK)), Some((end, u64::from(BLOCK))));
        let last_block = u64::MAX - u64::from(BLOCK - 1);
        for offset in [end + 1, SIZE, SIZE + u64::from(BLOCK), last_block, u64::MAX] {
            let payload = if kind == WRITE { BLOCK } else { 0 };
            assert_eq!(refused(&gold, kind, 0, offset, BLOCK), (errno, payload), "{kind} {offset}");
        }
        let payload = if kind == WRITE { 2 * BLOCK } else { 0 };
        assert_eq!(refused(&gold, kind, 0, end, 2 * BLOCK), (errno, payload));
    }
}

#[test]
fn empty_and_unaligned_is_invalid() {
    let gold = full();
    let fine = with(|export| export.block = BlockSizes::default());
    for kind in [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] {
        assert_eq!(refused(&gold, kind, 0, 0, 0), (Errno::Inval, 0));
        assert_eq!(refused(&fine, kind, 0, 0, 0), (Errno::Inval, 0));
        for (offset, len) in [(1, BLOCK), (256, BLOCK), (0, BLOCK - 1), (0, BLOCK + 1), (511, 1)] {
            let payload = if kind == WRITE { len } else { 0 };
            assert_eq!(refused(&gold, kind, 0, offset, len), (Errno::Inval, payload));
            assert_eq!(
                span_of(&served(&fine, kind, 0, offset, len)),
                Some((offset, u64::from(len)))
            );
        }
    }
}

#[test]
fn payloads_are_limited_but_not_what_has_none() {
    let gold = full();
    for kind in [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] {
        served(&gold, kind, 0, 0, MAX);
    }
    assert_eq!(refused(&gold, READ, 0, 0, MAX + BLOCK), (Errno::Inval, 0));
    assert_eq!(refused(&gold, READ, DF, 0, MAX + BLOCK), (Errno::Overflow, 0));
    assert_eq!(refused(&gold, WRITE, 0, 0, MAX + BLOCK), (Errno::Inval, MAX + BLOCK));
    for kind in [TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] {
        served(&gold, kind, 0, 0, SIZE as u32);
    }
}

#[test]
fn a_payload_too_long_to_throw_away_is_a_violation() {
    let gold = full();
    assert_eq!(refused(&gold, WRITE, 0, 0, MAX_DISCARD_BYTES), (Errno::Inval, MAX_DISCARD_BYTES));
    let limit_bytes = MAX_DISCARD_BYTES;
    for len_bytes in [limit_bytes + 1, u32::MAX] {
        let expected = Verdict::Violation(Violation::PayloadTooLong {
            len_bytes: len_bytes.into(),
            limit_bytes,
        });
        assert_eq!(check(&gold, WRITE, 0, 0, len_bytes), expected);
        assert_eq!(
            check(&with(|export| export.features.read_only = true), WRITE, 0, 0, len_bytes),
            { expected }
        );
    }
    let large = 1 << 27;
    let generous = with(|export| export.block.max_payload_bytes = large);
    served(&generous, WRITE, 0, 0, large);
    assert_eq!(refused(&generous, WRITE, 0, SIZE, large), (Errno::NoSpc, large));
    let len_bytes = u64::from(large + BLOCK);
    let expected = Verdict::Violation(Violation::PayloadTooLong { len_bytes, limit_bytes: large });
    assert_eq!(check(&generous, WRITE, 0, 0, large + BLOCK), expected);
}

#[test]
fn bad_magic_is_a_violation() {
    let mut header = request(READ, 0, 0, BLOCK);
    header[3] ^= 1;
    let expected = Violation::BadMagic { found: 0x2560_9512, expected: 0x2560_9513 };
    let verdict = Incoming::new().next(&full(), &mut &header[..]);
    assert_eq!(verdict, Some(Verdict::Violation(expected)));
}

#[test]
fn spans_are_cut_within_themselves() {
    let Op::Read { span, .. } = served(&full(), READ, 0, 8192, 4096) else { panic!() };
    let place = |span: Span| (span.offset_bytes(), span.len_bytes());
    assert_eq!(span.part(0, 4096), Some(span));
    assert_eq!(span.part(512, 1024).map(place), Some((8704, 1024)));
    assert_eq!(span.part(4095, 1).map(place), Some((12287, 1)));
    assert_eq!(span.part(0, 0), None);
    assert_eq!(span.part(4096, 1), None);
    assert_eq!(span.part(1, 4096), None);
    assert_eq!(span.part(u64::MAX, 2), None);
}

/// A stream with a served write, a refused one, and what follows them, cut everywhere.
#[test]
fn the_stream_is_cut_into_requests_wherever_it_is_split() {
    let gold = full();
    let stream = [
        &request_with_cookie(1, WRITE, 0, 0, BLOCK)[..],
        &[0xaa; BLOCK as usize],
        &request_with_cookie(2, WRITE, 0, 1, 700),
        &[0xbb; 700],
        &request_with_cookie(3, READ, 0, 0, BLOCK),
        &request_with_cookie(4, FLUSH, 0, 0, 0),
        &request_with_cookie(5, DISC, 0, 0, 0),
    ]
    .concat();
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(serve(&gold, [head, tail]), [1, 2, 3, 4, 0], "split at {at}");
    }
    assert_eq!(serve(&gold, stream.chunks(1)), [1, 2, 3, 4, 0]);
}

/// The cookies of the requests in the stream, zero for a disconnect; takes payloads as a server
/// would.
fn serve<'a>(session: &Session, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u64> {
    let (mut incoming, mut cookies, mut payload) = (Incoming::new(), Vec::new(), 0);
    for mut piece in pieces {
        loop {
            let here = piece.len().min(payload);
            assert!(piece[..here].iter().all(|byte| *byte == 0xaa));
            piece = &piece[here..];
            payload -= here;
            if payload > 0 {
                break;
            }
            match incoming.next(session, &mut piece) {
                None => break,
                Some(Verdict::Serve(command)) => {
                    payload = command.payload_bytes() as usize;
                    cookies.push(command.cookie.number);
                }
                Some(Verdict::Refuse(refusal)) => cookies.push(refusal.cookie.number),
                Some(Verdict::Disconnect) => cookies.push(0),
                Some(verdict) => panic!("{verdict:?}"),
            }
        }
    }
    assert!(incoming.is_idle());
    cookies
}

#[test]
fn a_stream_is_idle_between_requests_only() {
    let gold = full();
    let mut incoming = Incoming::new();
    assert!(incoming.is_idle());
    let header = request(WRITE, 0, 1, 4);
    assert_eq!(incoming.next(&gold, &mut &header[..5]), None);
    assert!(!incoming.is_idle());
    assert_eq!(incoming.next(&gold, &mut &header[5..]), None);
    assert_eq!(incoming.discard_bytes(), 4);
    assert_eq!(incoming.next(&gold, &mut &[1, 2, 3][..]), None);
    assert!(!incoming.is_idle());
    assert_eq!(incoming.discard_bytes(), 1);
    // Only now the client has said all of it, and can be answered.
    assert!(matches!(incoming.next(&gold, &mut &[4][..]), Some(Verdict::Refuse(_))));
    assert!(incoming.is_idle());
}
