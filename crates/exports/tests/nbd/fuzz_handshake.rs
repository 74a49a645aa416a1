//! Handshakes with whatever client, in process: the answers are what the protocol's text wants of
//! a server, however the bytes come.

use arbitrary::{Result, Unstructured};
use blkmq_exports::nbd::{Handshake, MAX_OPTION_BYTES, Outcome};
use blkmq_fuzz::Target;

use crate::client::*;
use crate::properties::{PEAK_LIMIT_BYTES, peak_of_handshake};

/// The longest data of an option that is drawn as a whole.
const DATA_MAX: u32 = 40_000;

#[test]
fn whatever_client_shakes_hands() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/handshake");
    Target { folder, cases: 2000, len_max: 1024 }.run(|bytes| {
        let mut bytes = Unstructured::new(bytes);
        let piece_bytes = 1 + usize::from(bytes.arbitrary::<u8>().unwrap_or(0));
        let stream = stream(&mut bytes);
        if blkmq_fuzz::is_repeated() {
            println!("in pieces of {piece_bytes}: {stream:02x?}");
        }
        check(&stream, piece_bytes);
    });
}

fn check(stream: &[u8], piece_bytes: usize) {
    let whole = run(exports(), [stream]);
    assert_eq!(run(exports(), stream.chunks(1)), whole, "byte by byte");
    assert_eq!(run(exports(), stream.chunks(piece_bytes)), whole, "in pieces");
    check_answers(stream, &whole);
    check_stopping(stream);
    let peak = peak_of_handshake(stream, piece_bytes);
    assert!(peak <= PEAK_LIMIT_BYTES, "{peak} bytes are held");
}

/// A client's stream: options of the right form, among them what is none.
fn stream(bytes: &mut Unstructured<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !bytes.is_empty() {
        // The bytes have ended if it fails, and what they made before counts.
        let Ok(piece) = (if stream.is_empty() { flags(bytes) } else { piece(bytes) }) else {
            break;
        };
        stream.extend(piece);
    }
    stream
}

fn flags(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let flags = if bytes.ratio(7, 8)? { bytes.int_in_range(0..=3)? } else { bytes.arbitrary()? };
    Ok(u32::to_be_bytes(flags).to_vec())
}

fn piece(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if bytes.ratio(1, 16)? {
        return raw(bytes);
    }
    let kind =
        if bytes.ratio(15, 16)? { bytes.int_in_range(1..=13)? } else { bytes.arbitrary()? };
    let data = match bytes.int_in_range(0..=7)? {
        0 => Vec::new(),
        1 => raw(bytes)?,
        2 => vec![bytes.arbitrary()?; bytes.int_in_range(0..=DATA_MAX)? as usize],
        3..=4 => {
            let name = name(bytes)?;
            let requests = 0..bytes.int_in_range(0..=5)?;
            let requests: Result<Vec<u16>> = requests.map(|_| bytes.int_in_range(0..=5)).collect();
            info(&name, &requests?)
        }
        5 => name(bytes)?.into_bytes(),
        _ => {
            let name = name(bytes)?;
            let queries = 0..bytes.int_in_range(0..=4)?;
            let queries: Result<Vec<String>> = queries.map(|_| query(bytes)).collect();
            meta(&name, &queries?.iter().map(String::as_str).collect::<Vec<_>>())
        }
    };
    let mut option = option(kind, &data);
    if bytes.ratio(1, 16)? {
        // Its length is not what it says.
        option[12..16].copy_from_slice(&u32::to_be_bytes(bytes.int_in_range(0..=1 << 21)?));
    }
    Ok(option)
}

fn raw(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len = bytes.int_in_range(0..=40)?.min(bytes.len());
    Ok(bytes.bytes(len)?.to_vec())
}

fn name(bytes: &mut Unstructured<'_>) -> Result<String> {
    text(bytes, &["gold", "bronze", ""])
}

fn query(bytes: &mut Unstructured<'_>) -> Result<String> {
    text(bytes, &["base:allocation", "base:", "qemu:allocation-depth", "x:y"])
}

fn text(bytes: &mut Unstructured<'_>, usual: &[&str]) -> Result<String> {
    if bytes.ratio(7, 8)? {
        return Ok((*bytes.choose(usual)?).to_owned());
    }
    Ok(String::from_utf8_lossy(&raw(bytes)?).into_owned())
}

/// An option as the client sent it, and where the next begins.
struct Sent<'a> {
    option: u32,
    data: &'a [u8],
    end: usize,
}

/// The replies to one option.
struct Replies {
    /// The kind of the last.
    last: u32,
    /// `base:allocation` was among the contexts, and no error followed.
    has_allocation: bool,
}

/// What a client has reached before it enters an export.
#[derive(Clone, Copy, Default)]
struct Agreed {
    structured: bool,
    /// The export for which `base:allocation` was selected last.
    allocation_of: Option<usize>,
}

/// The option at `at`, if it is one and whole.
fn sent(stream: &[u8], at: usize) -> Option<Sent<'_>> {
    let header = stream.get(at..at + 16)?;
    let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    let end = at + 16 + field(12) as usize;
    let data = stream.get(at + 16..end)?;
    (header[..8] == *b"IHAVEOPT").then_some(Sent { option: field(8), data, end })
}

/// Holds the answers to the protocol: to each option its replies, the last of which says so.
fn check_answers(stream: &[u8], run: &Run) {
    let (greeting, mut output) = run.output.split_at(GREETING_BYTES);
    assert_eq!(greeting[..16], *b"NBDMAGICIHAVEOPT");
    assert_eq!(greeting[17] & 1, 1, "fixed newstyle");
    let mut at = 4;
    let mut agreed = Agreed::default();
    while let Some(Sent { option, data, end }) = sent(stream, at) {
        if option == OPT_EXPORT_NAME || output.is_empty() {
            break;
        }
        let Replies { last, has_allocation } = take_replies(option, &mut output);
        at = end;
        match (option, last) {
            (OPT_STRUCTURED_REPLY | OPT_EXTENDED_HEADERS, REP_ACK) => agreed.structured = true,
            // A selection takes the place of the last one, even if it is none.
            (OPT_SET_META_CONTEXT, _) => {
                assert!(agreed.structured || last != REP_ACK, "metadata has no place in replies");
                agreed.allocation_of = has_allocation.then(|| export_of(data));
            }
            (OPT_GO, REP_ACK) => return check_entered(stream, at, run, data, agreed),
            (OPT_ABORT, REP_ACK) => assert!(matches!(run.outcome, Some(Outcome::Closed(_)))),
            // Only what is no leave at all, but a heap of data, is refused.
            (OPT_ABORT, _) => assert!(data.len() > MAX_OPTION_BYTES as usize),
            // What follows is another protocol.
            (OPT_STARTTLS, REP_ACK) => return,
            _ => {}
        }
    }
    if let Some(Outcome::Transmission(_)) = run.outcome {
        let Some(Sent { option: OPT_EXPORT_NAME, data, end }) = sent(stream, at) else {
            panic!("a session without an option that begins one");
        };
        assert!(output.len() == 10 || output.len() == 134, "{output:?}");
        assert!(output[10..].iter().all(|byte| *byte == 0));
        assert_eq!(output.len() == 134, stream[3] & 2 == 0, "zeroes are sent unless waived");
        let name = [&(data.len() as u32).to_be_bytes()[..], data].concat();
        return check_entered(stream, end, run, &name, agreed);
    }
    assert!(output.is_empty(), "an answer to no option: {output:02x?}");
    let is_cut = stream.len() < 4 || sent(stream, at).is_none();
    assert!(run.outcome.is_some() || is_cut, "a whole option at {at} has no answer");
}

/// Takes the replies to an option from the front of the output.
fn take_replies(option: u32, output: &mut &[u8]) -> Replies {
    let mut has_allocation = false;
    loop {
        let (header, rest) = output.split_at(20);
        assert_eq!(header[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(field(8), option, "a reply names its option");
        let (data, rest) = rest.split_at(field(16) as usize);
        *output = rest;
        let kind = field(12);
        if kind >> 31 == 1 {
            let words = std::str::from_utf8(data).expect("an error is told in UTF-8");
            assert!(!words.is_empty() && words.len() <= 4096 && !words.contains('\0'));
            return Replies { last: kind, has_allocation: false };
        }
        let fits = match kind {
            REP_ACK => return Replies { last: kind, has_allocation },
            REP_SERVER => option == OPT_LIST,
            REP_INFO => [OPT_INFO, OPT_GO].contains(&option) && data.len() >= 2,
            REP_META_CONTEXT => {
                has_allocation |= &data[4..] == b"base:allocation";
                [OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT].contains(&option)
            }
            _ => false,
        };
        assert!(fits, "a reply of kind {kind} to option {option}");
    }
}

/// The export that was asked for was entered, and what follows is left to it.
fn check_entered(stream: &[u8], end: usize, run: &Run, named: &[u8], agreed: Agreed) {
    let Some(Outcome::Transmission(session)) = &run.outcome else {
        panic!("it was told that it is in: {:?}", run.outcome);
    };
    assert_eq!(run.rest, stream[end..]);
    let index = export_of(named);
    assert_eq!(session.export_index(), index);
    assert_eq!(session.size_bytes(), exports().list()[index].size_bytes);
    assert_eq!(session.structured().is_some(), agreed.structured);
    assert_eq!(session.base_allocation(), agreed.allocation_of == Some(index));
}

/// The export whose name stands at the front of an option's data.
fn export_of(data: &[u8]) -> usize {
    let (len, rest) = data.split_first_chunk().unwrap();
    let name = std::str::from_utf8(&rest[..u32::from_be_bytes(*len) as usize]).unwrap();
    exports().find(name).expect("it was found before")
}

/// Whoever comes while the server stops is told so, and never gets in.
fn check_stopping(stream: &[u8]) {
    let mut output = Vec::new();
    let mut handshake = Handshake::new(exports(), &mut output);
    handshake.stop();
    let mut input = stream;
    let mut outcome = None;
    while outcome.is_none() && !input.is_empty() {
        outcome = handshake.receive(&mut input, &mut output);
    }
    assert!(!matches!(outcome, Some(Outcome::Transmission(_))), "it got in");
    let mut output = &output[GREETING_BYTES..];
    let mut at = 4;
    while !output.is_empty() {
        let Sent { option, data, end } = sent(stream, at).expect("an answer has its option");
        let leaves = option == OPT_ABORT && data.len() <= MAX_OPTION_BYTES as usize;
        let right = if leaves { REP_ACK } else { REP_ERR_SHUTDOWN };
        assert_eq!(take_replies(option, &mut output).last, right, "to option {option}");
        at = end;
    }
}
