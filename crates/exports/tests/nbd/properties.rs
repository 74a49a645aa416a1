//! What holds for every input.

use blkmq_exports::nbd::{
    AllocationExtent, Handshake, Incoming, MAX_OPTION_BYTES, Op, Outcome, ReplyHead, Session,
    TlsPolicy, Verdict,
};
use proptest::prelude::*;

use crate::client::*;
use crate::memory::measure;

/// Any option: mostly of a known kind, its data random, or well formed with random parts.
fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("gold".to_owned()),
        Just("bronze".to_owned()),
        Just(String::new()),
        "\\PC{0,20}",
    ];
    let query = prop_oneof![
        Just("base:allocation".to_owned()),
        Just("base:".to_owned()),
        "[a-z]{1,4}:[a-z]{0,4}",
        "\\PC{0,10}",
    ];
    let data = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..64),
        (0_usize..40_000).prop_map(|len| vec![0; len]),
        (name.clone(), prop::collection::vec(0_u16..6, 0..6)).prop_map(|(n, r)| info(&n, &r)),
        (name.clone(), prop::collection::vec(query, 0..4)).prop_map(|(name, queries)| {
            meta(&name, &queries.iter().map(String::as_str).collect::<Vec<_>>())
        }),
    ];
    // Options that end the handshake are rarer, so that scripts become long.
    let lasting = (3_u32..14).prop_filter("GO ends it", |kind| *kind != OPT_GO);
    let kind = prop_oneof![8 => lasting, 1 => 1_u32..3, 1 => Just(OPT_GO), 1 => any::<u32>()];
    (kind, data).prop_map(|(kind, data)| option(kind, &data))
}

fn any_script() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![9 => Just(3_u32), 1 => any::<u32>()];
    let noise = prop::collection::vec(any::<u8>(), 0..40);
    (flags, prop::collection::vec(any_option(), 0..12), noise)
        .prop_map(|(flags, options, noise)| [script(flags, &options), noise].concat())
}

fn any_session() -> impl Strategy<Value = Session> {
    (any::<[bool; 8]>(), 0_u8..3, any::<bool>(), 0_u32..4).prop_map(|(has, style, meta, min)| {
        let mut export = export("gold");
        let features = &mut export.features;
        features.read_only = has[0] && has[1];
        (features.flush, features.fua, features.trim) = (has[2], has[3], has[4]);
        (features.write_zeroes, features.block_status) = (has[5], has[6]);
        export.block.min_bytes = [1, 512, 4096, 65536][min as usize];
        export.block.preferred_bytes = 65536;
        let style = [Style::Simple, Style::Structured, Style::Extended][usize::from(style)];
        session(export, style, style != Style::Simple && meta)
    })
}

/// A request's header, by its fields.
#[derive(Clone, Copy, Debug)]
struct Header {
    cookie: u64,
    kind: u16,
    flags: u16,
    offset: u64,
    len: u64,
}

impl Header {
    /// In the form that the session agreed to, with the length cut to what fits.
    fn bytes(self, session: &Session) -> Vec<u8> {
        let Header { cookie, kind, flags, offset, len } = self;
        if session.extended_headers() {
            let mut header = extended(kind, flags, offset, len);
            header[8..16].copy_from_slice(&cookie.to_be_bytes());
            header.to_vec()
        } else {
            request_with_cookie(cookie, kind, flags, offset, len as u32).to_vec()
        }
    }
}

fn any_header() -> impl Strategy<Value = Header> {
    let kind = prop_oneof![9 => 0_u16..9, 1 => any::<u16>()];
    let flags = prop_oneof![4 => Just(0_u16), 4 => 0_u16..64, 1 => any::<u16>()];
    let blocks = prop_oneof![8 => (0_u64..1 << 22).prop_map(|n| n << 9), 1 => any::<u64>()];
    let len = prop_oneof![8 => (0_u64..64).prop_map(|n| n << 12), 2 => Just(12), 1 => any::<u64>()];
    (any::<u64>(), kind, flags, blocks, len).prop_map(|(cookie, kind, flags, offset, len)| Header {
        cookie,
        kind,
        flags,
        offset,
        len,
    })
}

/// Feeds bytes as `run` does, but throws the answers away and tells the most memory that was held.
pub(crate) fn peak_of_handshake(script: &[u8], piece_bytes: usize) -> usize {
    let exports = exports();
    let ((), taken) = measure(|| {
        let mut output = Vec::new();
        let mut handshake = Handshake::new(exports, &mut output);
        for mut piece in script.chunks(piece_bytes) {
            while !piece.is_empty() {
                output.clear();
                if handshake.receive(&mut piece, &mut output).is_some() {
                    return;
                }
            }
        }
    });
    taken.peak_bytes
}

/// A growing buffer holds its old and its new half-full self at once: three times the data. Then
/// the answer: an error message of a page, three times over as well.
pub(crate) const PEAK_LIMIT_BYTES: usize = 3 * (MAX_OPTION_BYTES as usize) + 6 * 4096;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_bytes_never_panic_a_handshake(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        greeted in any::<bool>(),
        piece_bytes in 1_usize..64,
    ) {
        let script = if greeted { [&[0, 0, 0, 3], &bytes[..]].concat() } else { bytes };
        let whole = run(exports(), [&script[..]]);
        prop_assert_eq!(run(exports(), script.chunks(piece_bytes)), whole);
    }

    #[test]
    fn random_scripts_are_answered_the_same_however_they_are_cut(
        script in any_script(),
        piece_bytes in 1_usize..5000,
    ) {
        let whole = run(exports(), [&script[..]]);
        let cut = run(exports(), script.chunks(piece_bytes));
        prop_assert_eq!(&cut, &whole);
        // All that was sent can be read back, up to the answer of an export's name.
        if !whole.output[GREETING_BYTES..].is_empty() && whole.outcome.is_none() {
            let replies = option_replies(&whole.output[GREETING_BYTES..]);
            let last = replies.last().expect("something was sent");
            prop_assert!(last.kind == REP_ACK || last.kind >> 31 == 1, "{:?}", last);
        }
    }

    #[test]
    fn a_handshake_holds_no_more_than_its_limit(
        script in any_script(),
        piece_bytes in 1_usize..50_000,
    ) {
        let peak = peak_of_handshake(&script, piece_bytes);
        prop_assert!(peak <= PEAK_LIMIT_BYTES, "{} bytes", peak);
    }

    #[test]
    fn what_is_served_keeps_every_rule(
        session in any_session(),
        header in any_header(),
        effect in (0_u64..64).prop_map(|n| n << 12),
    ) {
        let filter = [&effect.to_be_bytes()[..], &1_u32.to_be_bytes()].concat();
        let stream = [header.bytes(&session), filter].concat();
        let is_extended = session.extended_headers();
        let len = if is_extended { header.len } else { u64::from(header.len as u32) };
        let is_flagged = is_extended && header.flags & PAYLOAD_LEN != 0;
        let has_payload = is_flagged || header.kind == WRITE;
        let mut incoming = Incoming::new();
        let mut verdict = incoming.next(&session, &mut &stream[..]);
        // Twelve bytes follow the header, be they a filter or of a payload that is of no use.
        let discarded = incoming.discard_bytes();
        if verdict.is_none() {
            verdict = incoming.next(&session, &mut &vec![0; discarded as usize][..]);
        }
        match verdict {
            Some(Verdict::Serve(command)) => {
                prop_assert_eq!(command.cookie.number, header.cookie);
                prop_assert_eq!(command.cookie.offset_bytes, header.offset);
                let is_write = matches!(command.op, Op::Write { .. });
                let is_filtered = has_payload && !is_write;
                let span = match command.op {
                    Op::Flush => None,
                    Op::Read { span, one_chunk } => {
                        prop_assert!(!one_chunk || session.structured().is_some());
                        Some(span)
                    }
                    Op::BlockStatus { span, .. } => {
                        prop_assert!(session.base_allocation());
                        Some(span)
                    }
                    Op::Write { span, .. } | Op::Trim { span, .. } => Some(span),
                    Op::WriteZeroes { span, .. } | Op::Cache { span } => Some(span),
                };
                prop_assert_eq!(is_filtered, is_extended && has_payload && !is_write);
                prop_assert!(!is_filtered || (header.kind == BLOCK_STATUS && len == 12));
                if let Some(span) = span {
                    let len = if is_filtered { effect } else { len };
                    prop_assert_eq!((span.offset_bytes(), span.len_bytes()), (header.offset, len));
                    prop_assert!(len > 0);
                    let end = u128::from(header.offset) + u128::from(len);
                    prop_assert!(end <= u128::from(session.size_bytes()));
                }
                prop_assert_eq!(command.payload_bytes(), if is_write { len } else { 0 });
                prop_assert!(!is_write || has_payload);
            }
            Some(Verdict::Refuse(refusal)) => {
                prop_assert_eq!(refusal.cookie.number, header.cookie);
                let payload = if has_payload { len } else { 0 };
                prop_assert_eq!(u64::from(discarded), payload.saturating_sub(12));
            }
            Some(Verdict::Disconnect | Verdict::Violation(_)) => {}
            None => prop_assert!(false, "a whole header is a request"),
        }
    }

    /// Whatever was said before, nothing of it counts once the connection is encrypted.
    #[test]
    fn what_was_said_in_the_clear_is_forgotten(
        before in prop::collection::vec(any_option(), 0..6),
    ) {
        let before = script(FIXED_NEWSTYLE | NO_ZEROES, &before);
        let after = [option(OPT_STARTTLS, &[]), option(OPT_GO, &info("gold", &[]))].concat();
        let stream = [&before[..], &after].concat();
        let run = run_with(exports(), TlsPolicy::Optional, [&stream[..]]);
        // What came before may have ended the handshake, or have been encrypted itself.
        if let Some(Outcome::Transmission(session)) = run.outcome
            && run.rest.is_empty()
        {
            let mut plain = Vec::new();
            let mut handshake = Handshake::with_tls(exports(), TlsPolicy::Optional, &mut plain);
            let mut input = &before[..];
            let mut was_encrypted = false;
            while !input.is_empty() {
                let outcome = handshake.receive(&mut input, &mut plain);
                was_encrypted |= outcome == Some(Outcome::StartTls);
            }
            if !was_encrypted {
                prop_assert!(session.structured().is_none(), "{session:?}");
            }
        }
    }

    #[test]
    fn transmission_never_panics_and_never_allocates(
        session in any_session(),
        headers in prop::collection::vec(any_header(), 1..8),
        noise in prop::collection::vec(any::<u8>(), 0..100),
        piece_bytes in 1_usize..100,
    ) {
        let mut stream: Vec<u8> =
            headers.iter().flat_map(|header| header.bytes(&session)).collect();
        stream.extend(noise);
        let mut tail = Vec::with_capacity(16);
        let ((), taken) = measure(|| transmit(&session, stream.chunks(piece_bytes), &mut tail));
        prop_assert_eq!(taken.allocations, 0);
    }
}

/// Answers whatever comes, successes and errors in turn; payloads are what happens to follow.
fn transmit<'a>(session: &Session, pieces: impl Iterator<Item = &'a [u8]>, tail: &mut Vec<u8>) {
    let mut incoming = Incoming::new();
    for mut piece in pieces {
        while let Some(verdict) = incoming.next(session, &mut piece) {
            let command = match verdict {
                Verdict::Serve(command) => command,
                Verdict::Refuse(refusal) => {
                    let head = refusal.reply(session).head;
                    assert!(head.as_bytes().len() <= ReplyHead::MAX_BYTES);
                    continue;
                }
                Verdict::Disconnect | Verdict::Violation(_) => return,
            };
            let cookie = command.cookie;
            let head = match command.op {
                Op::Read { span, .. } => session.data(cookie, span),
                Op::BlockStatus { span, .. } => {
                    let extent =
                        AllocationExtent { len_bytes: span.len_bytes(), hole: true, zero: true };
                    let chunks = session.structured().expect("metadata needs structured replies");
                    chunks.block_status(cookie, &[extent], true, tail).head
                }
                _ => session.done(cookie),
            };
            assert!((16..=ReplyHead::MAX_BYTES).contains(&head.as_bytes().len()));
        }
        assert!(piece.is_empty());
    }
}

#[test]
fn a_long_option_is_not_held() {
    let long = script(FIXED_NEWSTYLE, &[option(99, &vec![0; 1 << 20]), option(OPT_LIST, &[])]);
    let peak = peak_of_handshake(&long, 1 << 16);
    assert!(peak < 4096, "{peak} bytes");
}
