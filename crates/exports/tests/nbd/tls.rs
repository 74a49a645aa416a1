//! When a connection is encrypted, and what a client may do before.

use blkmq_exports::nbd::{Closed, Handshake, MAX_OPTION_BYTES, Outcome, TlsPolicy};

use crate::client::*;

const ALL: [u32; 10] = [
    OPT_LIST,
    4,
    OPT_INFO,
    OPT_GO,
    OPT_STRUCTURED_REPLY,
    OPT_LIST_META_CONTEXT,
    OPT_SET_META_CONTEXT,
    OPT_EXTENDED_HEADERS,
    12,
    u32::MAX,
];

fn start_tls() -> Vec<u8> {
    option(OPT_STARTTLS, &[])
}

/// The kinds of the last replies to each of the options, and what came of them.
fn haggle(tls: TlsPolicy, options: &[Vec<u8>]) -> (Vec<u32>, Option<Outcome>) {
    let script = script(FIXED_NEWSTYLE | NO_ZEROES, options);
    let run = run_with(exports(), tls, [&script[..]]);
    let replies = option_replies(&run.output[GREETING_BYTES..]);
    let is_last = |kind: &u32| *kind == REP_ACK || kind >> 31 == 1;
    (replies.iter().map(|reply| reply.kind).filter(is_last).collect(), run.outcome)
}

#[test]
fn it_is_refused_where_it_is_off() {
    let (kinds, _) = haggle(TlsPolicy::Off, &[start_tls(), option(OPT_LIST, &[])]);
    assert_eq!(kinds, [REP_ERR_POLICY, REP_ACK]);
}

/// The acknowledgement is the last that travels in the clear; the rest of the input is TLS's.
#[test]
fn it_begins_after_the_acknowledgement() {
    for tls in [TlsPolicy::Optional, TlsPolicy::Required] {
        let mut output = Vec::new();
        let mut handshake = Handshake::with_tls(exports(), tls, &mut output);
        let script = script(FIXED_NEWSTYLE, &[start_tls(), b"\x16\x03\x01 hello".to_vec()]);
        let mut input = &script[..];
        assert_eq!(handshake.receive(&mut input, &mut output), Some(Outcome::StartTls));
        assert_eq!(input, b"\x16\x03\x01 hello");
        let replies = option_replies(&output[GREETING_BYTES..]);
        assert_eq!((replies.len(), replies[0].option, replies[0].kind), (1, OPT_STARTTLS, REP_ACK));
    }
}

#[test]
fn it_cannot_begin_twice() {
    for tls in [TlsPolicy::Optional, TlsPolicy::Required] {
        let (kinds, _) = haggle(tls, &[start_tls(), start_tls(), option(OPT_LIST, &[])]);
        assert_eq!(kinds, [REP_ACK, REP_ERR_INVALID, REP_ACK]);
    }
}

#[test]
fn data_with_it_is_invalid_and_begins_nothing() {
    let options = [option(OPT_STARTTLS, b"now"), option(OPT_LIST, &[]), start_tls()];
    let (kinds, _) = haggle(TlsPolicy::Required, &options);
    assert_eq!(kinds, [REP_ERR_INVALID, REP_ERR_TLS_REQD, REP_ACK]);
}

/// Not even whether an option or an export is known is told in the clear.
#[test]
fn where_it_is_required_nothing_else_is_answered_before() {
    let too_long = vec![0; MAX_OPTION_BYTES as usize + 1];
    for kind in ALL {
        for data in [&b""[..], &info("gold", &[]), &info("lead", &[]), &too_long] {
            let options = [option(kind, data), start_tls()];
            let (kinds, outcome) = haggle(TlsPolicy::Required, &options);
            assert_eq!((kinds, outcome), (vec![REP_ERR_TLS_REQD, REP_ACK], None), "option {kind}");
        }
    }
}

#[test]
fn where_it_is_required_export_name_closes_and_abort_is_answered() {
    let (_, outcome) = haggle(TlsPolicy::Required, &[option(OPT_EXPORT_NAME, b"gold")]);
    assert_eq!(outcome, Some(Outcome::Closed(Closed::TlsRequired)));
    let (kinds, outcome) = haggle(TlsPolicy::Required, &[option(OPT_ABORT, &[])]);
    assert_eq!((kinds, outcome), (vec![REP_ACK], Some(Outcome::Closed(Closed::Aborted))));
    // A client of the first newstyle has no other way in.
    let old = script(0, &[option(OPT_EXPORT_NAME, b"gold")]);
    let run = run_with(exports(), TlsPolicy::Required, [&old[..]]);
    assert_eq!(run.outcome, Some(Outcome::Closed(Closed::TlsRequired)));
}

#[test]
fn where_it_is_optional_everything_goes_with_and_without() {
    let options = [option(OPT_LIST, &[]), option(OPT_GO, &info("gold", &[]))];
    for options in [options.to_vec(), [&[start_tls()], &options[..]].concat()] {
        let (kinds, outcome) = haggle(TlsPolicy::Optional, &options);
        assert!(kinds.iter().all(|kind| *kind == REP_ACK), "{kinds:?}");
        assert!(matches!(outcome, Some(Outcome::Transmission(_))));
    }
}

#[test]
fn what_was_agreed_in_the_clear_is_forgotten() {
    let allocation = option(OPT_SET_META_CONTEXT, &meta("gold", &["base:allocation"]));
    let go = option(OPT_GO, &info("gold", &[]));
    for agreed in [OPT_STRUCTURED_REPLY, OPT_EXTENDED_HEADERS] {
        let agreed = option(agreed, &[]);
        let options = [agreed.clone(), allocation.clone(), start_tls(), go.clone()];
        let (_, outcome) = haggle(TlsPolicy::Optional, &options);
        let Some(Outcome::Transmission(session)) = outcome else { panic!("{outcome:?}") };
        assert!(session.structured().is_none() && !session.base_allocation());

        // What is said again counts, and only that.
        let options = [agreed.clone(), allocation.clone(), start_tls(), agreed, go.clone()];
        let (kinds, outcome) = haggle(TlsPolicy::Optional, &options);
        assert!(kinds.iter().all(|kind| *kind == REP_ACK), "{kinds:?}");
        let Some(Outcome::Transmission(session)) = outcome else { panic!("{outcome:?}") };
        assert!(session.structured().is_some() && !session.base_allocation());
    }
}

#[test]
fn a_server_that_stops_begins_no_tls() {
    let mut output = Vec::new();
    let mut handshake = Handshake::with_tls(exports(), TlsPolicy::Required, &mut output);
    handshake.stop();
    output.clear();
    let script = script(FIXED_NEWSTYLE, &[start_tls()]);
    assert_eq!(handshake.receive(&mut &script[..], &mut output), None);
    assert_eq!(option_replies(&output)[0].kind, REP_ERR_SHUTDOWN);
}
