//! Extended headers: agreed in the handshake, asked with, and answered in.

use std::sync::Arc;

use blkmq_exports::nbd::{
    AllocationExtent, Closed, Cookie, Errno, Exports, Incoming, MAX_DISCARD_BYTES, Op, Outcome,
    Session, Span, Verdict, Violation,
};

use crate::client::*;

const COOKIE: Cookie = Cookie { number: 0x0123_4567_89ab_cdef, offset_bytes: 8192 };

/// A session over 8 TiB.
fn huge() -> Session {
    let mut huge = export("gold");
    huge.size_bytes = 8 << 40;
    session(huge, Style::Extended, true)
}

fn next(session: &Session, stream: &[u8]) -> (Verdict, usize) {
    let mut incoming = Incoming::new();
    let mut input = stream;
    let verdict = incoming.next(session, &mut input).expect("a whole request");
    (verdict, input.len())
}

fn served(session: &Session, stream: &[u8]) -> Op {
    match next(session, stream) {
        (Verdict::Serve(command), 0) => command.op,
        verdict => panic!("not served but {verdict:?}"),
    }
}

/// The error of a refusal, and how much of what follows was thrown away before.
fn refused(session: &Session, stream: &[u8]) -> (Errno, u32) {
    let mut incoming = Incoming::new();
    let mut verdict = incoming.next(session, &mut &stream[..]);
    let payload = incoming.discard_bytes();
    if verdict.is_none() {
        verdict = incoming.next(session, &mut &vec![0; payload as usize][..]);
    }
    match verdict {
        Some(Verdict::Refuse(refusal)) => (refusal.errno, payload),
        verdict => panic!("not refused but {verdict:?}"),
    }
}

fn place(span: Span) -> (u64, u64) {
    (span.offset_bytes(), span.len_bytes())
}

fn filter(effect: u64, contexts: &[u32]) -> Vec<u8> {
    let mut payload = effect.to_be_bytes().to_vec();
    contexts.iter().for_each(|context| payload.extend(context.to_be_bytes()));
    payload
}

fn filtered(flags: u16, offset: u64, payload: &[u8]) -> Vec<u8> {
    let header = extended(BLOCK_STATUS, flags | PAYLOAD_LEN, offset, payload.len() as u64);
    [&header[..], payload].concat()
}

/// The replies to options, by kind, and what came of them.
fn haggle(options: &[Vec<u8>]) -> (Vec<u32>, Option<Outcome>) {
    let run = run(exports(), [&script(FIXED_NEWSTYLE | NO_ZEROES, options)[..]]);
    let replies = option_replies(&run.output[GREETING_BYTES..]);
    (replies.iter().map(|reply| reply.kind).collect(), run.outcome)
}

#[test]
fn they_are_agreed_once_and_supersede_structured_replies() {
    let (extended, structured) =
        (option(OPT_EXTENDED_HEADERS, &[]), option(OPT_STRUCTURED_REPLY, &[]));
    let options = [structured.clone(), extended.clone(), extended, structured];
    let (kinds, _) = haggle(&options);
    assert_eq!(kinds, [REP_ACK, REP_ACK, REP_ERR_INVALID, REP_ERR_EXT_HEADER_REQD]);
}

#[test]
fn a_context_selected_before_them_stays_selected() {
    let allocation = meta("gold", &["base:allocation"]);
    let (_, outcome) = haggle(&[
        option(OPT_STRUCTURED_REPLY, &[]),
        option(OPT_SET_META_CONTEXT, &allocation),
        option(OPT_EXTENDED_HEADERS, &[]),
        option(OPT_GO, &info("gold", &[])),
    ]);
    let Some(Outcome::Transmission(session)) = outcome else { panic!("{outcome:?}") };
    assert!(session.extended_headers() && session.base_allocation());
}

#[test]
fn they_alone_make_metadata_possible() {
    let (kinds, _) = haggle(&[
        option(OPT_EXTENDED_HEADERS, &[]),
        option(OPT_SET_META_CONTEXT, &meta("gold", &["base:allocation"])),
    ]);
    assert_eq!(kinds, [REP_ACK, REP_META_CONTEXT, REP_ACK]);
}

#[test]
fn they_forbid_export_name() {
    let (_, outcome) =
        haggle(&[option(OPT_EXTENDED_HEADERS, &[]), option(OPT_EXPORT_NAME, b"gold")]);
    assert_eq!(outcome, Some(Outcome::Closed(Closed::ExportNameExtended)));
}

/// DF comes with them, and the filter with a context for the export asked about.
#[test]
fn flags_tell_of_them() {
    let flags = |options: &[Vec<u8>]| {
        let options = [options, &[option(OPT_INFO, &info("gold", &[]))]].concat();
        let exports = Arc::new(Exports::new(vec![export("gold"), export("lead")], None).unwrap());
        let run = run(exports, [&script(FIXED_NEWSTYLE, &options)[..]]);
        let replies = option_replies(&run.output[GREETING_BYTES..]);
        let info = replies.iter().find(|reply| reply.kind == REP_INFO).unwrap();
        u16::from_be_bytes(info.data[10..].try_into().unwrap())
    };
    let agreed = option(OPT_EXTENDED_HEADERS, &[]);
    let context = |name: &str| option(OPT_SET_META_CONTEXT, &meta(name, &["base:allocation"]));
    let plain = flags(&[]);
    assert_eq!(flags(std::slice::from_ref(&agreed)), plain | 1 << 7);
    assert_eq!(flags(&[agreed.clone(), context("gold")]), plain | 1 << 7 | 1 << 12);
    assert_eq!(flags(&[agreed, context("lead")]), plain | 1 << 7);
    assert_eq!(flags(&[option(OPT_STRUCTURED_REPLY, &[]), context("gold")]), plain | 1 << 7);
}

#[test]
fn lengths_have_64_bits_where_no_data_travels() {
    let gold = huge();
    let len = 5 << 40;
    for kind in [TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] {
        let op = served(&gold, &extended(kind, 0, 4096, len));
        let (Op::Trim { span, .. }
        | Op::Cache { span }
        | Op::WriteZeroes { span, .. }
        | Op::BlockStatus { span, .. }) = op
        else {
            panic!("{op:?}")
        };
        assert_eq!(place(span), (4096, len));
        let beyond = refused(&gold, &extended(kind, 0, 4096, 8 << 40));
        assert_eq!(beyond, (if kind == WRITE_ZEROES { Errno::NoSpc } else { Errno::Inval }, 0));
        for len in [u64::MAX - 511, u64::MAX] {
            assert_eq!(refused(&gold, &extended(kind, 0, 4096, len)).1, 0);
        }
    }
    assert_eq!(refused(&gold, &extended(READ, 0, 0, 1 << 32)), (Errno::Inval, 0));
    assert_eq!(refused(&gold, &extended(READ, DF, 0, 1 << 32)), (Errno::Overflow, 0));
}

/// QEMU's client does not set the flag that says so.
#[test]
fn a_writes_length_is_its_payloads_whether_it_says_so_or_not() {
    let gold = huge();
    for flag in [PAYLOAD_LEN, 0] {
        let op = served(&gold, &extended(WRITE, flag | FUA, 512, 1024));
        let Op::Write { span, fua: true } = op else { panic!("{op:?}") };
        assert_eq!(place(span), (512, 1024));
        assert_eq!(refused(&gold, &extended(WRITE, flag, 0, 0)), (Errno::Inval, 0));
        assert_eq!(refused(&gold, &extended(WRITE, flag, 1, 3)), (Errno::Inval, 3));
    }
}

#[test]
fn payloads_that_do_not_belong_are_thrown_away() {
    let gold = huge();
    for kind in [READ, FLUSH, TRIM, CACHE, WRITE_ZEROES, 8, 99] {
        let header = extended(kind, PAYLOAD_LEN, 0, 512);
        assert_eq!(refused(&gold, &header), (Errno::Inval, 512), "command {kind}");
    }
    let longest = u64::from(MAX_DISCARD_BYTES);
    let header = extended(TRIM, PAYLOAD_LEN, 0, longest);
    assert_eq!(refused(&gold, &header), (Errno::Inval, MAX_DISCARD_BYTES));
    for len_bytes in [longest + 1, 1 << 32, u64::MAX] {
        for kind in [TRIM, WRITE, BLOCK_STATUS] {
            let (verdict, _) = next(&gold, &extended(kind, PAYLOAD_LEN, 0, len_bytes));
            let limit_bytes = MAX_DISCARD_BYTES;
            let expected = Violation::PayloadTooLong { len_bytes, limit_bytes };
            assert_eq!(verdict, Verdict::Violation(expected));
        }
    }
    // Compact headers have no such flag, and only a write has a payload.
    let compact = session(export("gold"), Style::Structured, true);
    assert_eq!(refused(&compact, &request(TRIM, PAYLOAD_LEN, 0, 512)), (Errno::Inval, 0));
    assert_eq!(refused(&compact, &request(WRITE, PAYLOAD_LEN, 0, 512)), (Errno::Inval, 512));
}

#[test]
fn block_status_may_be_filtered() {
    let gold = huge();
    for (flags, one) in [(0, false), (REQ_ONE, true)] {
        let op = served(&gold, &filtered(flags, 8192, &filter(5 << 40, &[1])));
        let Op::BlockStatus { span, one_extent } = op else { panic!("{op:?}") };
        assert_eq!((place(span), one_extent), ((8192, 5 << 40), one));
    }
}

#[test]
fn a_wrong_filter_is_refused_and_read_to_its_end() {
    let gold = huge();
    let wrong = [filter(4096, &[]), filter(4096, &[1, 1]), filter(4096, &[1, 2]), vec![1; 13]];
    for payload in wrong {
        let header = extended(BLOCK_STATUS, PAYLOAD_LEN, 0, payload.len() as u64);
        assert_eq!(refused(&gold, &header), (Errno::Inval, payload.len() as u32));
    }
    // These are as long as a right one, and so are read with the header.
    for payload in [filter(4096, &[2]), filter(0, &[1]), filter(1, &[1]), filter(9 << 40, &[1])] {
        assert_eq!(refused(&gold, &filtered(0, 0, &payload)), (Errno::Inval, 0));
    }
    assert_eq!(refused(&gold, &filtered(FAST_ZERO, 0, &filter(4096, &[1]))), (Errno::Inval, 0));
    let without = session(export("gold"), Style::Extended, false);
    let header = extended(BLOCK_STATUS, PAYLOAD_LEN, 0, 12);
    assert_eq!(refused(&without, &header), (Errno::Inval, 12));
}

#[test]
fn the_stream_is_cut_wherever_it_is_split() {
    let gold = huge();
    let stream = [
        &filtered(0, 0, &filter(4096, &[1]))[..],
        &extended(TRIM, PAYLOAD_LEN, 0, 100),
        &[0xbb; 100],
        &filtered(0, 0, &filter(4096, &[7])),
        &extended(FLUSH, 0, 0, 0),
        &filtered(0, 0, &filter(4096, &[])),
        &extended(DISC, 0, 0, 0),
    ]
    .concat();
    let expected = ["status", "refused", "refused", "flush", "refused", "disconnect"];
    let cut = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut incoming, mut seen) = (Incoming::new(), Vec::new());
        for mut piece in pieces {
            while let Some(verdict) = incoming.next(&gold, &mut piece) {
                seen.push(match verdict {
                    Verdict::Serve(command) if command.op == Op::Flush => "flush",
                    Verdict::Serve(_) => "status",
                    Verdict::Refuse(_) => "refused",
                    Verdict::Disconnect => "disconnect",
                    Verdict::Violation(violation) => panic!("{violation}"),
                });
            }
        }
        assert!(incoming.is_idle());
        seen
    };
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(cut(&mut [head, tail].into_iter()), expected, "split at {at}");
    }
    assert_eq!(cut(&mut stream.chunks(1)), expected);
}

#[test]
fn a_filter_that_is_awaited_is_half_a_request() {
    let gold = huge();
    let stream = filtered(0, 0, &filter(4096, &[1]));
    let mut incoming = Incoming::new();
    assert_eq!(incoming.next(&gold, &mut &stream[..32]), None);
    assert!(!incoming.is_idle());
    assert!(matches!(incoming.next(&gold, &mut &stream[32..]), Some(Verdict::Serve(_))));
    assert!(incoming.is_idle());
}

#[test]
fn the_other_forms_magic_is_a_violation() {
    let (compact, long) = (session(export("gold"), Style::Structured, false), huge());
    let (verdict, _) = next(&compact, &extended(READ, 0, 0, 512));
    let expected = Violation::BadMagic { found: 0x21e4_1c71, expected: 0x2560_9513 };
    assert_eq!(verdict, Verdict::Violation(expected));
    let stream = [&request(READ, 0, 0, 512)[..], &[0; 4]].concat();
    let expected = Violation::BadMagic { found: 0x2560_9513, expected: 0x21e4_1c71 };
    assert_eq!(next(&long, &stream).0, Verdict::Violation(expected));
}

/// The fields of a chunk: flags, type and payload. Cookie and offset are those of the request.
fn chunk(head: &[u8], tail: &[u8]) -> (u16, u16, Vec<u8>) {
    let bytes = [head, tail].concat();
    assert_eq!(bytes[..4], [0x6e, 0x8a, 0x27, 0x8c]);
    assert_eq!(bytes[8..16], COOKIE.number.to_be_bytes());
    assert_eq!(bytes[16..24], COOKIE.offset_bytes.to_be_bytes());
    assert_eq!(bytes[24..32], (bytes.len() as u64 - 32).to_be_bytes());
    let half = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
    (half(4), half(6), bytes[32..].to_vec())
}

#[test]
fn every_reply_is_a_chunk_with_an_extended_header() {
    let gold = huge();
    assert_eq!(chunk(gold.done(COOKIE).as_bytes(), &[]), (1, 0, vec![]));

    let reply = gold.failed(COOKIE, Errno::NotSup, "slow");
    let payload = [&95_u32.to_be_bytes()[..], &4_u16.to_be_bytes(), b"slow"].concat();
    assert_eq!(chunk(reply.head.as_bytes(), reply.tail), (1, 0x8001, payload));

    let Op::Read { span, .. } = served(&gold, &extended(READ, 0, 8192, 512)) else { panic!() };
    let payload = [&8192_u64.to_be_bytes()[..], &[7; 512]].concat();
    assert_eq!(chunk(gold.data(COOKIE, span).as_bytes(), &[7; 512]), (1, 1, payload));

    let hole = gold.structured().unwrap().hole(COOKIE, span, false);
    let payload = [&8192_u64.to_be_bytes()[..], &512_u32.to_be_bytes()].concat();
    assert_eq!(chunk(hole.as_bytes(), &[]), (0, 2, payload));
}

#[test]
fn block_status_tells_lengths_of_64_bits() {
    let gold = huge();
    let extents = [
        AllocationExtent { len_bytes: 5 << 40, hole: true, zero: true },
        AllocationExtent { len_bytes: 512, hole: false, zero: false },
    ];
    let mut tail = Vec::new();
    let reply = gold.structured().unwrap().block_status(COOKIE, &extents, true, &mut tail);
    let mut payload = [1_u32, 2].map(u32::to_be_bytes).concat();
    payload.extend([5_u64 << 40, 3, 512, 0].map(u64::to_be_bytes).concat());
    assert_eq!(chunk(reply.head.as_bytes(), reply.tail), (1, 6, payload));
}
