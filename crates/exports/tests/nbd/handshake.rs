//! Handshakes, as scripts of options.

use std::sync::Arc;

use blkmq_exports::nbd::{Closed, Exports, Handshake, MAX_OPTION_BYTES, MAX_SKIP_BYTES, Outcome};

use crate::client::*;

/// The replies to `options`, by a client of fixed newstyle, which end in no outcome.
fn haggle(options: &[Vec<u8>]) -> Vec<OptionReply> {
    let script = script(FIXED_NEWSTYLE | NO_ZEROES, options);
    let run = run(exports(), [&script[..]]);
    assert_eq!(run.outcome, None);
    assert!(run.rest.is_empty());
    option_replies(&run.output[GREETING_BYTES..])
}

fn ack(option: u32) -> OptionReply {
    OptionReply { option, kind: REP_ACK, data: Vec::new() }
}

/// The one reply, which must be an error, with its message.
fn error(option_bytes: Vec<u8>) -> (u32, String) {
    let mut replies = haggle(&[option_bytes]);
    assert_eq!(replies.len(), 1, "{replies:?}");
    let reply = replies.remove(0);
    (reply.kind, String::from_utf8(reply.data).unwrap())
}

fn closed(script: &[u8]) -> Closed {
    match run(exports(), [script]).outcome {
        Some(Outcome::Closed(closed)) => closed,
        outcome => panic!("not closed but {outcome:?}"),
    }
}

#[test]
fn the_greeting_offers_fixed_newstyle_without_zeroes() {
    let mut output = Vec::new();
    Handshake::new(exports(), &mut output);
    assert_eq!(output, b"NBDMAGICIHAVEOPT\0\x03");
}

#[test]
fn export_name_enters_with_and_without_zeroes() {
    for (flags, padding) in [(FIXED_NEWSTYLE | NO_ZEROES, 0), (FIXED_NEWSTYLE, 124), (0, 124)] {
        let script = script(flags, &[option(OPT_EXPORT_NAME, b"bronze"), b"next".to_vec()]);
        let run = run(exports(), [&script[..]]);
        let Some(Outcome::Transmission(session)) = run.outcome else { panic!("no session") };
        assert_eq!(session.export_index(), 1);
        assert!(session.structured().is_none());
        assert_eq!(run.rest, b"next");
        let mut expected = (1_u64 << 30).to_be_bytes().to_vec();
        // HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN, SEND_CACHE.
        expected.extend([0b101, 0b0000_1111]);
        expected.extend(vec![0; padding]);
        assert_eq!(run.output[GREETING_BYTES..], expected);
    }
}

#[test]
fn export_name_has_no_error_reply() {
    let named = |name: &[u8]| closed(&script(FIXED_NEWSTYLE, &[option(OPT_EXPORT_NAME, name)]));
    assert_eq!(named(b"lead"), Closed::UnknownExport("lead".into()));
    assert_eq!(named(b"\xff"), Closed::BadExportName);
    assert_eq!(named(b"gold\0"), Closed::BadExportName);
    assert_eq!(named(&[b'x'; 4097]), Closed::BadExportName);
}

#[test]
fn go_enters_and_leaves_the_rest_to_the_session() {
    let options = [option(OPT_GO, &info("", &[1, 2, 3, 77])), b"requests".to_vec()];
    let script = script(FIXED_NEWSTYLE, &options);
    let run = run(exports(), [&script[..]]);
    let Some(Outcome::Transmission(session)) = run.outcome else { panic!("no session") };
    assert_eq!((session.export_index(), session.size_bytes()), (0, 1 << 30));
    assert_eq!(run.rest, b"requests");

    let replies = option_replies(&run.output[GREETING_BYTES..]);
    let data: Vec<_> = replies.iter().map(|reply| (reply.kind, &reply.data[..])).collect();
    let mut export = vec![0, 0];
    export.extend((1_u64 << 30).to_be_bytes());
    // HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_CACHE,
    // SEND_FAST_ZERO.
    export.extend([0b1101, 0b0110_1101]);
    let sizes = [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 0, 0x10, 0, 0];
    assert_eq!(
        data,
        [
            (REP_INFO, &export[..]),
            (REP_INFO, b"\0\x01gold"),
            (REP_INFO, b"\0\x02the volume gold"),
            (REP_INFO, &sizes),
            (REP_ACK, b""),
        ]
    );
    assert!(replies.iter().all(|reply| reply.option == OPT_GO));
}

#[test]
fn info_tells_only_what_is_asked_and_stays() {
    let replies = haggle(&[
        option(OPT_INFO, &info("bronze", &[])),
        option(OPT_STRUCTURED_REPLY, &[]),
        option(OPT_INFO, &info("bronze", &[0, 3])),
    ]);
    let kinds: Vec<_> = replies.iter().map(|reply| (reply.option, reply.kind)).collect();
    assert_eq!(
        kinds,
        [
            (OPT_INFO, REP_INFO),
            (OPT_INFO, REP_ACK),
            (OPT_STRUCTURED_REPLY, REP_ACK),
            (OPT_INFO, REP_INFO),
            (OPT_INFO, REP_INFO),
            (OPT_INFO, REP_ACK),
        ]
    );
    assert_eq!(replies[0].data[10..], [0b101, 0b0000_1111]);
    // SEND_DF comes with structured replies.
    assert_eq!(replies[3].data[10..], [0b101, 0b1000_1111]);
}

#[test]
fn unknown_exports_are_named_in_the_error() {
    for kind in [OPT_INFO, OPT_GO] {
        let (reply, message) = error(option(kind, &info("le\nad", &[3])));
        assert_eq!(reply, REP_ERR_UNKNOWN);
        assert!(message.contains(r#""le\nad""#), "{message}");
    }
    let (reply, message) = error(option(OPT_LIST_META_CONTEXT, &meta("lead", &[])));
    assert_eq!(reply, REP_ERR_UNKNOWN);
    assert!(message.contains("lead"), "{message}");
    let (reply, message) = error(option(OPT_GO, &info(&"\u{1F980}".repeat(1024), &[])));
    assert_eq!((reply, message.len() <= 4096), (REP_ERR_UNKNOWN, true));
}

#[test]
fn malformed_info_is_invalid() {
    let good = info("gold", &[3]);
    for len in 0..good.len() {
        assert_eq!(error(option(OPT_GO, &good[..len])).0, REP_ERR_INVALID, "cut to {len}");
    }
    let longer = [&good[..], &[0]].concat();
    let bad_utf8 = [&4_u32.to_be_bytes()[..], b"go\xffd", &[0, 0]].concat();
    for data in [longer, bad_utf8, info("go\0d", &[]), info(&"x".repeat(4097), &[])] {
        assert_eq!(error(option(OPT_INFO, &data)).0, REP_ERR_INVALID);
    }
}

#[test]
fn list_shows_every_export() {
    let replies = haggle(&[option(OPT_LIST, &[])]);
    let entry = |name: &str| OptionReply {
        option: OPT_LIST,
        kind: REP_SERVER,
        data: [string(name), format!("the volume {name}").into_bytes()].concat(),
    };
    assert_eq!(replies, [entry("gold"), entry("bronze"), ack(OPT_LIST)]);
}

#[test]
fn options_without_data_refuse_data() {
    for kind in [OPT_LIST, OPT_STARTTLS, OPT_STRUCTURED_REPLY, OPT_EXTENDED_HEADERS] {
        assert_eq!(error(option(kind, b"x")).0, REP_ERR_INVALID);
    }
}

#[test]
fn what_is_not_known_is_passed_over() {
    let unknown = [4, 0, 12, u32::MAX];
    for kind in unknown {
        for len in [0, 1, 70_000, MAX_SKIP_BYTES as usize] {
            let replies = haggle(&[option(kind, &vec![7; len]), option(OPT_LIST, &[])]);
            assert_eq!((replies[0].option, replies[0].kind), (kind, REP_ERR_UNSUP));
            assert_eq!(replies.last(), Some(&ack(OPT_LIST)));
        }
    }
}

#[test]
fn long_options_are_too_big_and_longer_ones_close() {
    let limit = MAX_OPTION_BYTES as usize;
    let replies = haggle(&[option(OPT_GO, &vec![0; limit + 1]), option(OPT_STRUCTURED_REPLY, &[])]);
    assert_eq!((replies[0].option, replies[0].kind), (OPT_GO, REP_ERR_TOO_BIG));
    assert_eq!(replies[1..], [ack(OPT_STRUCTURED_REPLY)]);

    assert_eq!(error(option(OPT_GO, &vec![0; limit])).0, REP_ERR_INVALID);

    for kind in [OPT_GO, 99] {
        let len_bytes = MAX_SKIP_BYTES + 1;
        let long = option(kind, &vec![0; len_bytes as usize]);
        let end = closed(&script(FIXED_NEWSTYLE, &[long]));
        assert_eq!(end, Closed::OptionTooLong { option: kind, len_bytes });
    }
}

#[test]
fn the_number_of_options_is_limited_by_the_number_of_exports() {
    let lists = |count| script(FIXED_NEWSTYLE, &vec![option(OPT_STRUCTURED_REPLY, &[]); count]);
    let limit = 128 + 8 * 2;
    assert_eq!(run(exports(), [&lists(limit)[..]]).outcome, None);
    assert_eq!(closed(&lists(limit + 1)), Closed::TooManyOptions(limit));
}

#[test]
fn abort_is_answered_whatever_it_carries() {
    for data in [&b""[..], b"bye"] {
        let script = script(FIXED_NEWSTYLE, &[option(OPT_ABORT, data)]);
        let run = run(exports(), [&script[..]]);
        assert_eq!(run.outcome, Some(Outcome::Closed(Closed::Aborted)));
        assert_eq!(option_replies(&run.output[GREETING_BYTES..]), [ack(OPT_ABORT)]);
    }
}

#[test]
fn breaches_close() {
    assert_eq!(closed(&4_u32.to_be_bytes()), Closed::ClientFlags(4));
    assert_eq!(closed(&script(0, &[option(OPT_GO, &info("gold", &[]))])), {
        Closed::NotFixedNewstyle(OPT_GO)
    });
    let magic = u64::from_be_bytes(*b"IHAVEOPS");
    assert_eq!(closed(&script(FIXED_NEWSTYLE, &[b"IHAVEOPS\0\0\0\x01\0\0\0\0".to_vec()])), {
        Closed::BadMagic(magic)
    });
}

#[test]
fn a_call_gives_one_answer_at_most() {
    let mut output = Vec::new();
    let mut handshake = Handshake::new(exports(), &mut output);
    let script = script(FIXED_NEWSTYLE, &vec![option(OPT_LIST, &[]); 5]);
    let mut input = &script[..];
    for left in (0..5).rev() {
        output.clear();
        assert_eq!(handshake.receive(&mut input, &mut output), None);
        assert_eq!(option_replies(&output).len(), 3);
        assert_eq!(input.len(), 16 * left);
    }
}

#[test]
fn nothing_is_taken_once_it_is_over() {
    let mut output = Vec::new();
    let mut handshake = Handshake::new(exports(), &mut output);
    let script = script(FIXED_NEWSTYLE, &[option(OPT_GO, &info("gold", &[])), b"rest".to_vec()]);
    let mut input = &script[..];
    assert!(matches!(handshake.receive(&mut input, &mut output), Some(Outcome::Transmission(_))));
    let again = handshake.receive(&mut input, &mut output);
    assert_eq!(again, Some(Outcome::Closed(Closed::Over)));
    assert_eq!(input, b"rest");
}

#[test]
fn a_stopping_server_refuses_all_but_abort() {
    let stopped = |options: &[Vec<u8>]| {
        let mut output = Vec::new();
        let mut handshake = Handshake::new(exports(), &mut output);
        handshake.stop();
        let script = script(FIXED_NEWSTYLE, options);
        let (mut input, mut outcome) = (&script[..], None);
        while !input.is_empty() && outcome.is_none() {
            outcome = handshake.receive(&mut input, &mut output);
        }
        let replies = option_replies(&output[GREETING_BYTES..]);
        (replies.iter().map(|reply| reply.kind).collect::<Vec<_>>(), outcome)
    };
    let options = [
        option(OPT_LIST, &[]),
        option(OPT_GO, &info("gold", &[])),
        option(OPT_SET_META_CONTEXT, &meta("gold", &[])),
        option(OPT_STARTTLS, &[]),
        option(OPT_ABORT, &[]),
    ];
    let refused = REP_ERR_SHUTDOWN;
    let aborted = Some(Outcome::Closed(Closed::Aborted));
    assert_eq!(stopped(&options), (vec![refused, refused, refused, refused, REP_ACK], aborted));
    let name = [option(OPT_EXPORT_NAME, b"gold")];
    assert_eq!(stopped(&name), (vec![], Some(Outcome::Closed(Closed::Stopping))));
}

/// Whether the context is listed, selected, and still there in transmission of the export entered.
#[test]
fn metadata_queries() {
    let context = |id: u32| [&id.to_be_bytes()[..], b"base:allocation"].concat();
    let listed_and_set = |queries: &[&str]| {
        let replies = haggle(&[
            option(OPT_LIST_META_CONTEXT, &meta("gold", queries)),
            option(OPT_STRUCTURED_REPLY, &[]),
            option(OPT_SET_META_CONTEXT, &meta("gold", queries)),
        ]);
        let contexts = |option| {
            let of_it = replies.iter().filter(|reply| reply.option == option).collect::<Vec<_>>();
            let (last, contexts) = of_it.split_last().unwrap();
            assert_eq!(last.kind, REP_ACK, "{queries:?}");
            assert!(contexts.iter().all(|reply| reply.kind == REP_META_CONTEXT));
            contexts.iter().map(|reply| reply.data.clone()).collect::<Vec<_>>()
        };
        let (listed, set) = (contexts(OPT_LIST_META_CONTEXT), contexts(OPT_SET_META_CONTEXT));
        assert!(listed.iter().all(|data| *data == context(0)), "{listed:?}");
        assert!(set.iter().all(|data| *data == context(1)), "{set:?}");
        (listed.len(), set.len())
    };
    assert_eq!(listed_and_set(&[]), (1, 0));
    assert_eq!(listed_and_set(&["base:"]), (1, 0));
    assert_eq!(listed_and_set(&["base:allocation"]), (1, 1));
    assert_eq!(listed_and_set(&["base:allocation", "base:allocation", "base:"]), (1, 1));
    assert_eq!(listed_and_set(&["base:dirt"]), (0, 0));
    assert_eq!(listed_and_set(&["qemu:dirty-bitmap:b", "x-me:"]), (0, 0));
    assert_eq!(listed_and_set(&["qemu:", "base:allocation"]), (1, 1));
}

#[test]
fn metadata_is_not_offered_where_an_export_has_none() {
    let mut plain = export("plain");
    plain.features.block_status = false;
    let options = [
        option(OPT_STRUCTURED_REPLY, &[]),
        option(OPT_LIST_META_CONTEXT, &meta("plain", &[])),
        option(OPT_SET_META_CONTEXT, &meta("plain", &["base:allocation"])),
    ];
    let script = script(FIXED_NEWSTYLE, &options);
    let run = run(Arc::new(Exports::new(vec![plain], None).unwrap()), [&script[..]]);
    let expected =
        [ack(OPT_STRUCTURED_REPLY), ack(OPT_LIST_META_CONTEXT), ack(OPT_SET_META_CONTEXT)];
    assert_eq!(option_replies(&run.output[GREETING_BYTES..]), expected);
}

#[test]
fn malformed_metadata_requests_are_invalid() {
    let good = meta("gold", &["base:allocation"]);
    for len in 0..good.len() {
        let reply = error(option(OPT_LIST_META_CONTEXT, &good[..len]));
        assert_eq!(reply.0, REP_ERR_INVALID, "cut to {len}");
    }
    let longer = [&good[..], &[0]].concat();
    let many = [string("gold"), u32::MAX.to_be_bytes().to_vec()].concat();
    for data in [longer, many, meta("gold", &["allocation"]), meta("gold", &[""])] {
        assert_eq!(error(option(OPT_LIST_META_CONTEXT, &data)).0, REP_ERR_INVALID);
    }
    let unstructured = option(OPT_SET_META_CONTEXT, &good);
    assert_eq!(error(unstructured).0, REP_ERR_INVALID);
}

#[test]
fn the_last_selection_for_the_export_entered_counts() {
    let selected = |selections: &[Vec<u8>], entered: &str| {
        let mut options = vec![option(OPT_STRUCTURED_REPLY, &[])];
        options.extend(selections.iter().map(|data| option(OPT_SET_META_CONTEXT, data)));
        options.push(option(OPT_GO, &info(entered, &[])));
        let script = script(FIXED_NEWSTYLE, &options);
        match run(exports(), [&script[..]]).outcome {
            Some(Outcome::Transmission(session)) => session.base_allocation(),
            outcome => panic!("no session but {outcome:?}"),
        }
    };
    let allocation = &["base:allocation"];
    assert!(!selected(&[], "gold"));
    assert!(selected(&[meta("gold", allocation)], "gold"));
    assert!(selected(&[meta("", allocation)], "gold"), "the default by its other name");
    assert!(!selected(&[meta("gold", allocation)], "bronze"));
    assert!(!selected(&[meta("gold", allocation), meta("gold", &[])], "gold"));
    assert!(!selected(&[meta("gold", allocation), meta("lead", allocation)], "gold"));
    let too_big = vec![0; MAX_OPTION_BYTES as usize + 1];
    assert!(!selected(&[meta("gold", allocation), too_big], "gold"));
    assert!(selected(&[meta("bronze", allocation), meta("gold", allocation)], "gold"));
}

#[test]
fn every_split_gives_the_same_answers() {
    let scripts = [
        script(FIXED_NEWSTYLE, &[option(OPT_EXPORT_NAME, b"gold"), b"rest".to_vec()]),
        script(
            FIXED_NEWSTYLE | NO_ZEROES,
            &[
                option(OPT_STARTTLS, &[]),
                option(OPT_STRUCTURED_REPLY, &[]),
                option(OPT_EXTENDED_HEADERS, b"who knows"),
                option(OPT_LIST, &[]),
                option(OPT_INFO, &info("lead", &[])),
                option(OPT_INFO, &info("bronze", &[1, 2, 3])),
                option(OPT_SET_META_CONTEXT, &meta("gold", &["base:allocation", "x-a:b"])),
                option(OPT_GO, &info("gold", &[3])),
                b"requests".to_vec(),
            ],
        ),
        script(FIXED_NEWSTYLE, &[option(OPT_LIST, &[]), option(OPT_ABORT, b"x"), vec![1, 2]]),
        script(
            FIXED_NEWSTYLE,
            &[option(OPT_GO, &info("lead", &[])), b"not an option....".to_vec()],
        ),
        script(8, &[]),
    ];
    for script in scripts {
        let whole = run(exports(), [&script[..]]);
        assert!(whole.outcome.is_some());
        for at in 0..=script.len() {
            let (head, tail) = script.split_at(at);
            assert_eq!(run(exports(), [head, tail]), whole, "split at {at}");
        }
        assert_eq!(run(exports(), script.chunks(1)), whole, "byte by byte");
    }
}
