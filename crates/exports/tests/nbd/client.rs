//! A client's bytes, written down from the protocol's text and not from the server's code.

use std::sync::Arc;

use blkmq_exports::nbd::{
    BlockSizes, Export, Exports, Features, Handshake, Outcome, Session, TlsPolicy,
};

pub(crate) const FIXED_NEWSTYLE: u32 = 1;
pub(crate) const NO_ZEROES: u32 = 2;

pub(crate) const OPT_EXPORT_NAME: u32 = 1;
pub(crate) const OPT_ABORT: u32 = 2;
pub(crate) const OPT_LIST: u32 = 3;
pub(crate) const OPT_STARTTLS: u32 = 5;
pub(crate) const OPT_INFO: u32 = 6;
pub(crate) const OPT_GO: u32 = 7;
pub(crate) const OPT_STRUCTURED_REPLY: u32 = 8;
pub(crate) const OPT_LIST_META_CONTEXT: u32 = 9;
pub(crate) const OPT_SET_META_CONTEXT: u32 = 10;
pub(crate) const OPT_EXTENDED_HEADERS: u32 = 11;

pub(crate) const REP_ACK: u32 = 1;
pub(crate) const REP_SERVER: u32 = 2;
pub(crate) const REP_INFO: u32 = 3;
pub(crate) const REP_META_CONTEXT: u32 = 4;
pub(crate) const REP_ERR_UNSUP: u32 = 0x8000_0001;
pub(crate) const REP_ERR_POLICY: u32 = 0x8000_0002;
pub(crate) const REP_ERR_INVALID: u32 = 0x8000_0003;
pub(crate) const REP_ERR_TLS_REQD: u32 = 0x8000_0005;
pub(crate) const REP_ERR_UNKNOWN: u32 = 0x8000_0006;
pub(crate) const REP_ERR_SHUTDOWN: u32 = 0x8000_0007;
pub(crate) const REP_ERR_TOO_BIG: u32 = 0x8000_0009;
pub(crate) const REP_ERR_EXT_HEADER_REQD: u32 = 0x8000_000a;

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

pub(crate) const FUA: u16 = 1;
pub(crate) const NO_HOLE: u16 = 2;
pub(crate) const DF: u16 = 4;
pub(crate) const REQ_ONE: u16 = 8;
pub(crate) const FAST_ZERO: u16 = 16;
pub(crate) const PAYLOAD_LEN: u16 = 32;

/// The length of the server's greeting.
pub(crate) const GREETING_BYTES: usize = 18;

/// A server's reply to an option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OptionReply {
    pub(crate) option: u32,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

/// How a whole handshake went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) output: Vec<u8>,
    pub(crate) outcome: Option<Outcome>,
    /// What the handshake left to the session.
    pub(crate) rest: Vec<u8>,
}

pub(crate) fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [b"IHAVEOPT", &option.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
}

pub(crate) fn info(name: &str, requests: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend(u16::try_from(requests.len()).unwrap().to_be_bytes());
    requests.iter().for_each(|request| data.extend(request.to_be_bytes()));
    data
}

pub(crate) fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    queries.iter().for_each(|query| data.extend(string(query)));
    data
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

pub(crate) fn script(flags: u32, options: &[Vec<u8>]) -> Vec<u8> {
    [&flags.to_be_bytes()[..], &options.concat()].concat()
}

pub(crate) fn request(kind: u16, flags: u16, offset: u64, len: u32) -> [u8; 28] {
    request_with_cookie(0x0123_4567_89ab_cdef, kind, flags, offset, len)
}

pub(crate) fn request_with_cookie(
    cookie: u64,
    kind: u16,
    flags: u16,
    offset: u64,
    len: u32,
) -> [u8; 28] {
    let fields = [
        &[0x25, 0x60, 0x95, 0x13][..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &len.to_be_bytes(),
    ];
    fields.concat().try_into().unwrap()
}

/// The header of a request once extended headers were agreed.
pub(crate) fn extended(kind: u16, flags: u16, offset: u64, len: u64) -> [u8; 32] {
    let fields = [
        &[0x21, 0xe4, 0x1c, 0x71][..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &0x0123_4567_89ab_cdef_u64.to_be_bytes(),
        &offset.to_be_bytes(),
        &len.to_be_bytes(),
    ];
    fields.concat().try_into().unwrap()
}

/// Reads replies to options to the end of `bytes`.
pub(crate) fn option_replies(mut bytes: &[u8]) -> Vec<OptionReply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at(20);
        assert_eq!(header[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let (data, rest) = rest.split_at(field(16) as usize);
        replies.push(OptionReply { option: field(8), kind: field(12), data: data.to_vec() });
        bytes = rest;
    }
    replies
}

pub(crate) fn export(name: &str) -> Export {
    Export {
        name: name.to_owned(),
        description: format!("the volume {name}"),
        size_bytes: 1 << 30,
        features: Features {
            read_only: false,
            flush: true,
            fua: true,
            trim: true,
            write_zeroes: true,
            multi_conn: true,
            rotational: false,
            block_status: true,
        },
        block: BlockSizes { min_bytes: 512, preferred_bytes: 4096, max_payload_bytes: 1 << 20 },
    }
}

/// `gold`, which is the default, and `bronze`, which is read-only.
pub(crate) fn exports() -> Arc<Exports> {
    let mut bronze = export("bronze");
    bronze.features.read_only = true;
    Arc::new(Exports::new(vec![export("gold"), bronze], Some("gold")).unwrap())
}

/// Runs a handshake over the pieces, as a server would: sends an answer before it goes on.
pub(crate) fn run<'a>(exports: Arc<Exports>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Run {
    run_with(exports, TlsPolicy::Off, pieces)
}

/// Runs a handshake that may become encrypted, which here changes nothing on the wire.
pub(crate) fn run_with<'a>(
    exports: Arc<Exports>,
    tls: TlsPolicy,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Run {
    let mut sent = Vec::new();
    let mut handshake = Handshake::with_tls(exports, tls, &mut sent);
    let mut end = None;
    let mut rest = Vec::new();
    for mut piece in pieces {
        while end.is_none() && !piece.is_empty() {
            let mut output = Vec::new();
            let outcome = handshake.receive(&mut piece, &mut output);
            end = outcome.filter(|outcome| *outcome != Outcome::StartTls);
            sent.extend(output);
        }
        rest.extend_from_slice(piece);
    }
    Run { output: sent, outcome: end, rest }
}

/// The form of replies that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Simple,
    Structured,
    Extended,
}

/// The session over one export that a client gets who asks for replies and metadata as told.
pub(crate) fn session(export: Export, style: Style, metadata: bool) -> Session {
    let name = export.name.clone();
    let mut options = Vec::new();
    match style {
        Style::Simple => {}
        Style::Structured => options.push(option(OPT_STRUCTURED_REPLY, &[])),
        Style::Extended => options.push(option(OPT_EXTENDED_HEADERS, &[])),
    }
    if metadata {
        options.push(option(OPT_SET_META_CONTEXT, &meta(&name, &["base:allocation"])));
    }
    options.push(option(OPT_GO, &info(&name, &[])));
    let script = script(FIXED_NEWSTYLE | NO_ZEROES, &options);
    let exports = Arc::new(Exports::new(vec![export], None).unwrap());
    match run(exports, [&script[..]]).outcome {
        Some(Outcome::Transmission(session)) => session,
        outcome => panic!("no session but {outcome:?}"),
    }
}
