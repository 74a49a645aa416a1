//! Transmission with whatever client, in process: each request is judged as the protocol's text
//! wants it, however the bytes come, and each answer can be read by who knows only that text.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use blkmq_exports::nbd::{Command, Errno, Exports, Incoming, Op, Outcome, Reply, Session, Verdict};
use blkmq_fuzz::Target;

use crate::client::*;
use crate::judge::{Ending, Header, Rules};
use crate::memory::measure;

/// The longest payload that is drawn, in bytes, and the most requests.
const PAYLOAD_MAX: u32 = 70_000;
const REQUESTS_MAX: usize = 40;

const NO_END: &str = "numbers and choices take an end of the bytes for zeroes";

#[test]
fn whatever_client_transmits() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/transmission");
    Target { folder, cases: 2000, len_max: 1024 }.run(|bytes| {
        let mut bytes = Unstructured::new(bytes);
        let (session, rules) = session_of(&mut bytes).expect(NO_END);
        let piece_bytes = bytes.int_in_range(1..=200).expect(NO_END);
        let stream = stream(&mut bytes, &rules).expect(NO_END);
        if blkmq_fuzz::is_repeated() {
            println!("{rules:?}, in pieces of {piece_bytes}: {stream:02x?}");
        }
        check(&session, &rules, &stream, piece_bytes);
    });
}

fn check(session: &Session, rules: &Rules, stream: &[u8], piece_bytes: usize) {
    let whole = verdicts(session, [stream]);
    assert_eq!(verdicts(session, stream.chunks(1)), whole, "byte by byte");
    assert_eq!(verdicts(session, stream.chunks(piece_bytes)), whole, "in pieces");
    let mut at = 0;
    for (index, verdict) in whole.iter().enumerate() {
        let header = Header::parse(&stream[at..]).expect("a verdict has its request");
        match (rules.judge(&header), verdict) {
            (Ending::Leave, Verdict::Disconnect) | (Ending::Broken, Verdict::Violation(_)) => {
                assert_eq!(index + 1, whole.len(), "nothing follows the end");
                return;
            }
            (Ending::Answer(errors), verdict) => {
                check_verdict(session, rules, &header, &errors, verdict);
            }
            (ending, verdict) => panic!("{verdict:?} instead of {ending:?} for {header:?}"),
        }
        at = stream.len().min(at + Header::BYTES + header.payload());
    }
    // A refusal may be told only when the payload has come.
    let rest = &stream[at..];
    let is_half = Header::parse(rest).is_none_or(|header| {
        let is_refused = rules.judge(&header) != Ending::Answer(Vec::new());
        is_refused && rest.len() < Header::BYTES + header.payload()
    });
    assert!(is_half, "the request at {at} is passed over");
}

/// An export that offers what is drawn, and what a client is told of it.
fn session_of(bytes: &mut Unstructured<'_>) -> Result<(Session, Rules)> {
    let mut export = export("gold");
    let features = &mut export.features;
    features.read_only = bytes.ratio(1, 4)?;
    features.flush = bytes.ratio(7, 8)?;
    features.fua = bytes.ratio(7, 8)?;
    features.trim = bytes.ratio(7, 8)?;
    features.write_zeroes = bytes.ratio(7, 8)?;
    features.block_status = bytes.ratio(7, 8)?;
    export.block.min_bytes = *bytes.choose(&[512, 1, 4096, 65536])?;
    export.block.preferred_bytes = 65536;
    export.block.max_payload_bytes = *bytes.choose(&[1 << 20, 1 << 16])?;
    export.size_bytes = *bytes.choose(&[1 << 20, 1 << 30, u64::MAX << 16])?;
    let (structured, metadata) = *bytes.choose(&[(true, true), (true, false), (false, false)])?;
    let mut rules = Rules {
        size_bytes: export.size_bytes,
        flags: 0,
        min_bytes: export.block.min_bytes,
        max_payload_bytes: export.block.max_payload_bytes,
        metadata: metadata && export.features.block_status,
    };
    let mut options = Vec::new();
    if structured {
        options.push(option(OPT_STRUCTURED_REPLY, &[]));
    }
    if metadata {
        options.push(option(OPT_SET_META_CONTEXT, &meta("gold", &["base:allocation"])));
    }
    options.push(option(OPT_GO, &info("gold", &[])));
    let script = script(FIXED_NEWSTYLE | NO_ZEROES, &options);
    let run = run(Arc::new(Exports::new(vec![export], None).unwrap()), [&script[..]]);
    let replies = option_replies(&run.output[GREETING_BYTES..]);
    let info = replies.iter().find(|reply| reply.kind == REP_INFO).expect("GO tells of the export");
    assert_eq!(info.data[2..10], rules.size_bytes.to_be_bytes());
    rules.flags = u16::from_be_bytes([info.data[10], info.data[11]]);
    match run.outcome {
        Some(Outcome::Transmission(session)) => Ok((session, rules)),
        outcome => panic!("no session but {outcome:?}"),
    }
}

/// A client's stream: requests, most of them of the right form, and what is none.
fn stream(bytes: &mut Unstructured<'_>, rules: &Rules) -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    for _ in 0..REQUESTS_MAX {
        if bytes.is_empty() {
            break;
        }
        if bytes.ratio(1, 32)? {
            let len = bytes.int_in_range(0..=60)?.min(bytes.len());
            stream.extend(bytes.bytes(len)?);
            continue;
        }
        let kind = if bytes.ratio(31, 32)? {
            *bytes.choose(&[WRITE, READ, WRITE_ZEROES, TRIM, FLUSH, BLOCK_STATUS, CACHE, 8])?
        } else {
            bytes.arbitrary()?
        };
        let flags = if bytes.ratio(3, 4)? { bytes.int_in_range(0..=31)? } else { 0 };
        let unit = u64::from(if bytes.ratio(7, 8)? { rules.min_bytes } else { 1 });
        let (at, len): (u64, u32) = match bytes.int_in_range(0..=7)? {
            0 => (bytes.arbitrary()?, bytes.arbitrary()?),
            1 => (0, 0),
            // Around the end.
            2 => (rules.size_bytes - 3 * unit, bytes.int_in_range(0..=5)?),
            _ => (bytes.int_in_range(0..=15)?, bytes.int_in_range(0..=15)?),
        };
        let at = if at < 16 { at * unit } else { at };
        let len = len.wrapping_mul(unit as u32);
        let len = if kind == WRITE && bytes.ratio(31, 32)? { len.min(PAYLOAD_MAX) } else { len };
        stream.extend(request_with_cookie(bytes.arbitrary()?, kind, flags, at, len));
        if kind == WRITE && len <= PAYLOAD_MAX {
            stream.extend(std::iter::repeat_n(0x25, len as usize));
        }
    }
    Ok(stream)
}

/// What is said of the requests in a stream that comes in pieces. Nothing of it allocates.
fn verdicts<'a>(session: &Session, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Verdict> {
    let pieces: Vec<&[u8]> = pieces.into_iter().collect();
    let all: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut verdicts = Vec::with_capacity(all / Header::BYTES + 1);
    let ((), taken) = measure(|| {
        let mut incoming = Incoming::new();
        let mut payload = 0;
        for mut piece in pieces {
            loop {
                // The caller takes the payload of what is served.
                let here = piece.len().min(payload);
                (piece, payload) = (&piece[here..], payload - here);
                let Some(verdict) = (payload == 0).then(|| incoming.next(session, &mut piece))
                else {
                    break;
                };
                let Some(verdict) = verdict else { break };
                verdicts.push(verdict);
                match verdict {
                    Verdict::Serve(command) => payload = command.payload_bytes() as usize,
                    Verdict::Refuse(_) => {}
                    Verdict::Disconnect | Verdict::Violation(_) => return,
                }
            }
            assert!(piece.is_empty(), "whatever has come is taken");
        }
    });
    assert_eq!(taken.allocations, 0);
    verdicts
}

/// A request that is answered: served if it keeps the rules, and refused if not, with the right
/// error.
fn check_verdict(
    session: &Session,
    rules: &Rules,
    header: &Header,
    errors: &[u32],
    verdict: &Verdict,
) {
    match verdict {
        Verdict::Serve(command) => {
            assert!(errors.is_empty(), "{header:?} is served and not refused with {errors:?}");
            assert_eq!(command.cookie.number, header.cookie);
            assert_eq!(command.payload_bytes() as usize, header.payload());
            check_success(session, header, command);
            let failed = session.failed(command.cookie, Errno::Io, "it went up in smoke");
            check_failure(session, header, 5, &failed);
        }
        Verdict::Refuse(refusal) => {
            let error = refusal.errno.to_wire();
            let is_right = errors.contains(&error) || rules.may_refuse(header, error);
            assert!(is_right, "{refusal:?} instead of {errors:?} for {header:?}");
            check_failure(session, header, error, &refusal.reply(session));
        }
        other => panic!("{other:?} for {header:?}"),
    }
}

/// The answer to a request that was done.
fn check_success(session: &Session, header: &Header, command: &Command) {
    let structured = session.structured();
    match command.op {
        Op::Read { span, .. } => {
            let head = session.data(command.cookie, span);
            match structured {
                None => check_simple(head.as_bytes(), header, 0),
                Some(_) => {
                    let body = check_chunk(head.as_bytes(), header, 1, header.len);
                    assert_eq!(body, header.offset.to_be_bytes());
                }
            }
        }
        // Its reply is the caller's own.
        Op::BlockStatus { .. } => assert!(structured.is_some()),
        _ => {
            let head = session.done(command.cookie);
            // Either form says that there is nothing more to say.
            match head.as_bytes().len() {
                16 => check_simple(head.as_bytes(), header, 0),
                _ => assert!(check_chunk(head.as_bytes(), header, 0, 0).is_empty()),
            }
        }
    }
}

fn check_failure(session: &Session, header: &Header, error: u32, reply: &Reply<'_>) {
    let head = reply.head.as_bytes();
    if session.structured().is_none() {
        assert!(reply.tail.is_empty());
        return check_simple(head, header, error);
    }
    let body = check_chunk(head, header, 0x8001, reply.tail.len() as u32);
    let len = u16::try_from(reply.tail.len()).unwrap();
    assert_eq!(body, [&error.to_be_bytes()[..], &len.to_be_bytes()].concat());
    assert!(std::str::from_utf8(reply.tail).is_ok());
}

fn check_simple(head: &[u8], header: &Header, error: u32) {
    let cookie = header.cookie.to_be_bytes();
    assert_eq!(head, [&[0x67, 0x44, 0x66, 0x98][..], &error.to_be_bytes(), &cookie].concat());
}

/// The head of a last chunk, behind which `tail` more bytes follow. What follows within the head.
fn check_chunk<'a>(head: &'a [u8], header: &Header, kind: u16, tail: u32) -> &'a [u8] {
    let (start, body) = head.split_at(20);
    assert_eq!(start[..4], [0x66, 0x8e, 0x33, 0xef]);
    assert_eq!(start[4..6], [0, 1], "it is the last one");
    assert_eq!(start[6..8], kind.to_be_bytes());
    assert_eq!(start[8..16], header.cookie.to_be_bytes());
    assert_eq!(start[16..], (body.len() as u32 + tail).to_be_bytes());
    body
}
