//! The handshake: fixed newstyle, as a state machine.

use std::sync::Arc;

use super::closed::Closed;
use super::export::Exports;
use super::haggling::{Haggling, Next, TlsPolicy};
use super::option::{OptionError, OptionKind};
use super::session::Session;
use super::wire::{self, Fields};

/// The most data of an option that is looked at, and so the most that a handshake holds: 16 KiB.
/// A longer one is passed over and answered with `NBD_REP_ERR_TOO_BIG`.
pub const MAX_OPTION_BYTES: u32 = 16 << 10;

/// The most data of an option that is passed over: 1 MiB. Who announces more is disconnected.
pub const MAX_SKIP_BYTES: u32 = 1 << 20;

/// How many options a handshake may have, and how many more for each export: a client that lists
/// exports asks a few things about each over one connection.
const MAX_OPTIONS: usize = 128;
const MAX_OPTIONS_PER_EXPORT: usize = 8;

/// What follows the answer to `NBD_OPT_EXPORT_NAME`, unless waived.
const EXPORT_NAME_PADDING: [u8; 124] = [0; 124];

const CLIENT_FLAGS_BYTES: usize = 4;
const OPTION_HEADER_BYTES: usize = 16;

/// A connection in its handshake.
#[derive(Debug)]
pub struct Handshake {
    haggling: Haggling,
    state: State,
    pending: Vec<u8>,
    options: usize,
    flags: ClientFlags,
}

/// What a handshake has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send what stands in the output. All that follows, in both directions and the rest of the
    /// input included, is TLS: the handshake goes on with what the client says by way of that, and
    /// knows nothing any more of what was agreed before.
    StartTls,
    /// Requests follow, from the rest of the input on.
    Transmission(Session),
    /// Send what stands in the output, then close.
    Closed(Closed),
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum State {
    ClientFlags,
    OptionHeader,
    Data { option: OptionKind, len: usize },
    Skip { option: u32, left: usize, known: bool },
    Over,
}

#[derive(Clone, Copy, Debug, Default)]
struct ClientFlags {
    fixed_newstyle: bool,
    no_zeroes: bool,
}

/// Where a step leads: on, or out.
type Step = Result<Next, Closed>;

impl Handshake {
    /// Begins without TLS: greets the client in `output`.
    pub fn new(exports: Arc<Exports>, output: &mut Vec<u8>) -> Self {
        Handshake::with_tls(exports, TlsPolicy::Off, output)
    }

    /// Begins with TLS as told: greets the client in `output`.
    pub fn with_tls(exports: Arc<Exports>, tls: TlsPolicy, output: &mut Vec<u8>) -> Self {
        output.extend_from_slice(&wire::GREETING_MAGIC.to_be_bytes());
        output.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
        let flags = wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES;
        output.extend_from_slice(&flags.to_be_bytes());
        Handshake {
            haggling: Haggling::new(exports, tls),
            state: State::ClientFlags,
            pending: Vec::new(),
            options: 0,
            flags: ClientFlags::default(),
        }
    }

    /// Takes from the front of `input`, and moves `input` past what was taken, until the input
    /// ends, an option is answered or the handshake is over. What is to be sent is appended to
    /// `output`.
    ///
    /// Call again while input is left, but first send what stands in `output`: a client may not
    /// send an option before it has the answer to the last, and so a hostile one can make the
    /// server hold no more than one answer.
    pub fn receive(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Option<Outcome> {
        let before = output.len();
        while output.len() == before {
            let step = match self.state {
                State::ClientFlags => {
                    self.fill(input, CLIENT_FLAGS_BYTES)?;
                    self.client_flags()
                }
                State::OptionHeader => {
                    self.fill(input, OPTION_HEADER_BYTES)?;
                    self.option_header()
                }
                State::Data { option, len } => {
                    self.fill(input, len)?;
                    self.data(option, output)
                }
                State::Skip { option, left, known } => {
                    self.skip(input, option, left, known, output)?;
                    Ok(Next::Option)
                }
                State::Over => Err(Closed::Over),
            };
            let outcome = match step {
                Ok(Next::Option) => continue,
                Ok(Next::StartTls) => return Some(Outcome::StartTls),
                Ok(Next::Transmission(session)) => Outcome::Transmission(session),
                Err(closed) => Outcome::Closed(closed),
            };
            self.state = State::Over;
            return Some(outcome);
        }
        None
    }

    /// From now on every option but `NBD_OPT_ABORT` is answered with `NBD_REP_ERR_SHUTDOWN`.
    pub const fn stop(&mut self) {
        self.haggling.stop();
    }

    /// Gathers until `want` bytes are pending.
    fn fill(&mut self, input: &mut &[u8], want: usize) -> Option<()> {
        let here = input.len().min(want - self.pending.len());
        let (piece, rest) = input.split_at(here);
        self.pending.extend_from_slice(piece);
        *input = rest;
        (self.pending.len() == want).then_some(())
    }

    fn client_flags(&mut self) -> Step {
        let flags = Fields::new(&self.pending).u32().expect("as many bytes were gathered");
        if flags & !(wire::CLIENT_FIXED_NEWSTYLE | wire::CLIENT_NO_ZEROES) != 0 {
            return Err(Closed::ClientFlags(flags));
        }
        self.flags.fixed_newstyle = flags & wire::CLIENT_FIXED_NEWSTYLE != 0;
        self.flags.no_zeroes = flags & wire::CLIENT_NO_ZEROES != 0;
        self.expect(State::OptionHeader);
        Ok(Next::Option)
    }

    fn option_header(&mut self) -> Step {
        const GATHERED: &str = "as many bytes were gathered";
        let mut fields = Fields::new(&self.pending);
        let magic = fields.u64().expect(GATHERED);
        let option = fields.u32().expect(GATHERED);
        let len_bytes = fields.u32().expect(GATHERED);
        if magic != wire::OPTION_MAGIC {
            return Err(Closed::BadMagic(magic));
        }
        let limit = MAX_OPTIONS + MAX_OPTIONS_PER_EXPORT * self.haggling.nr_exports();
        self.options += 1;
        if self.options > limit {
            return Err(Closed::TooManyOptions(limit));
        }
        if !self.flags.fixed_newstyle && option != wire::OPT_EXPORT_NAME {
            return Err(Closed::NotFixedNewstyle(option));
        }
        let len = len_bytes as usize;
        match OptionKind::from_wire(option) {
            Some(OptionKind::ExportName) if len > wire::MAX_STRING_BYTES => {
                return Err(Closed::BadExportName);
            }
            Some(option) if len_bytes <= MAX_OPTION_BYTES => {
                self.expect(State::Data { option, len });
            }
            _ if len_bytes > MAX_SKIP_BYTES => {
                return Err(Closed::OptionTooLong { option, len_bytes });
            }
            known => self.expect(State::Skip { option, left: len, known: known.is_some() }),
        }
        Ok(Next::Option)
    }

    fn skip(
        &mut self,
        input: &mut &[u8],
        option: u32,
        left: usize,
        known: bool,
        output: &mut Vec<u8>,
    ) -> Option<()> {
        let here = input.len().min(left);
        *input = &input[here..];
        self.state = State::Skip { option, left: left - here, known };
        if here < left {
            return None;
        }
        let error = if known {
            OptionError::new(wire::REP_ERR_TOO_BIG, "the option's data is over 16384 bytes")
        } else {
            OptionError::unsupported()
        };
        self.haggling.passed_over(option, error, output);
        self.expect(State::OptionHeader);
        Some(())
    }

    /// Answers an option whose data is all there.
    fn data(&mut self, option: OptionKind, output: &mut Vec<u8>) -> Step {
        let data = &self.pending;
        let step = match option {
            OptionKind::ExportName => {
                let padding = if self.flags.no_zeroes { &[][..] } else { &EXPORT_NAME_PADDING };
                self.haggling.export_name(data, padding, output)
            }
            _ => self.haggling.option(option, data, output),
        };
        self.expect(State::OptionHeader);
        step
    }

    fn expect(&mut self, state: State) {
        self.state = state;
        self.pending.clear();
    }
}
