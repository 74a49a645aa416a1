//! The handshake: fixed newstyle, as a state machine.

use std::sync::Arc;

use thiserror::Error;

use super::export::Exports;
use super::option::{self, InfoRequest, MetaRequest, OptionError, OptionKind, OptionReplies};
use super::session::{Session, Style};
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

const CLIENT_FLAGS_BYTES: usize = 4;
const OPTION_HEADER_BYTES: usize = 16;

/// A connection in its handshake.
#[derive(Debug)]
pub struct Handshake {
    exports: Arc<Exports>,
    state: State,
    pending: Vec<u8>,
    options: usize,
    agreed: Agreed,
    stopping: bool,
}

/// How a handshake ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Requests follow, from the rest of the input on.
    Transmission(Session),
    /// Send what stands in the output, then close.
    Closed(Closed),
}

/// Why a handshake ended in no session.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The client took its leave in good order.
    #[error("the client ended the handshake")]
    Aborted,
    /// The client set flags that were not offered.
    #[error("the client set unknown handshake flags {0:#010x}")]
    ClientFlags(u32),
    /// What should be an option is none.
    #[error("an option began with {0:#018x} instead of IHAVEOPT")]
    BadMagic(u64),
    /// A client of the first newstyle can only name its export, and would not understand a reply.
    #[error("a client without fixed newstyle sent option {0}")]
    NotFixedNewstyle(u32),
    /// `NBD_OPT_EXPORT_NAME` named what is not there; the option knows no error reply.
    #[error("the client asked for an unknown export {0:?}")]
    UnknownExport(String),
    /// `NBD_OPT_EXPORT_NAME` came with what cannot be a name.
    #[error("the client asked for an export by what is no name")]
    BadExportName,
    /// `NBD_OPT_EXPORT_NAME` while the server is stopping.
    #[error("the client asked for an export while the server is stopping")]
    Stopping,
    /// More options than a sane client sends.
    #[error("the client sent more than {0} options")]
    TooManyOptions(usize),
    /// More data than a sane client sends.
    #[error("option {option} announced {len_bytes} bytes of data, over the limit of 1 MiB")]
    OptionTooLong {
        /// Which.
        option: u32,
        /// How much it announced.
        len_bytes: u32,
    },
    /// The handshake was over when more input came.
    #[error("the handshake was over already")]
    Over,
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
struct Agreed {
    fixed_newstyle: bool,
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was selected; it counts for that one alone.
    status_of: Option<usize>,
}

/// Where a step leads: on, to a session, or out.
type Step = Result<Option<Session>, Closed>;

impl Handshake {
    /// Begins: greets the client in `output`.
    pub fn new(exports: Arc<Exports>, output: &mut Vec<u8>) -> Self {
        output.extend_from_slice(&wire::GREETING_MAGIC.to_be_bytes());
        output.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
        let flags = wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES;
        output.extend_from_slice(&flags.to_be_bytes());
        Handshake {
            exports,
            state: State::ClientFlags,
            pending: Vec::new(),
            options: 0,
            agreed: Agreed::default(),
            stopping: false,
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
                    Ok(None)
                }
                State::Over => Err(Closed::Over),
            };
            let outcome = match step {
                Ok(None) => continue,
                Ok(Some(session)) => Outcome::Transmission(session),
                Err(closed) => Outcome::Closed(closed),
            };
            self.state = State::Over;
            return Some(outcome);
        }
        None
    }

    /// From now on every option but `NBD_OPT_ABORT` is answered with `NBD_REP_ERR_SHUTDOWN`.
    pub const fn stop(&mut self) {
        self.stopping = true;
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
        self.agreed.fixed_newstyle = flags & wire::CLIENT_FIXED_NEWSTYLE != 0;
        self.agreed.no_zeroes = flags & wire::CLIENT_NO_ZEROES != 0;
        self.expect(State::OptionHeader);
        Ok(None)
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
        let limit = MAX_OPTIONS + MAX_OPTIONS_PER_EXPORT * self.exports.list().len();
        self.options += 1;
        if self.options > limit {
            return Err(Closed::TooManyOptions(limit));
        }
        if !self.agreed.fixed_newstyle && option != wire::OPT_EXPORT_NAME {
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
        Ok(None)
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
        let error = if self.stopping {
            shutdown()
        } else if known {
            OptionError::new(wire::REP_ERR_TOO_BIG, "the option's data is over 16384 bytes")
        } else {
            OptionError::unsupported(option)
        };
        if option == wire::OPT_SET_META_CONTEXT {
            self.agreed.status_of = None;
        }
        OptionReplies::new(option, output).error(&error);
        self.expect(State::OptionHeader);
        Some(())
    }

    /// Answers an option whose data is all there.
    fn data(&mut self, option: OptionKind, output: &mut Vec<u8>) -> Step {
        // Taken out, so that what is read in it can be used while the agreement changes.
        let data = std::mem::take(&mut self.pending);
        let step = match option {
            OptionKind::ExportName => self.export_name(&data, output).map(Some),
            _ => self.option(option, &data, output),
        };
        self.pending = data;
        self.expect(State::OptionHeader);
        step
    }

    fn export_name(&self, name: &[u8], output: &mut Vec<u8>) -> Result<Session, Closed> {
        if self.stopping {
            return Err(Closed::Stopping);
        }
        let name = option::text(name).ok_or(Closed::BadExportName)?;
        let index =
            self.exports.find(name).ok_or_else(|| Closed::UnknownExport(name.to_owned()))?;
        let export = &self.exports.list()[index];
        output.extend_from_slice(&export.size_bytes.to_be_bytes());
        let flags = export.features.to_wire(self.agreed.structured);
        output.extend_from_slice(&flags.to_be_bytes());
        if !self.agreed.no_zeroes {
            output.extend_from_slice(&[0; wire::EXPORT_NAME_PADDING_BYTES]);
        }
        Ok(self.session(index))
    }

    fn option(&mut self, option: OptionKind, data: &[u8], output: &mut Vec<u8>) -> Step {
        let mut replies = OptionReplies::new(option.to_wire(), output);
        if option == OptionKind::Abort {
            replies.ack();
            return Err(Closed::Aborted);
        }
        match self.answer(option, data, &mut replies) {
            Ok(entered) => {
                replies.ack();
                Ok(entered.map(|index| self.session(index)))
            }
            Err(error) => {
                replies.error(&error);
                Ok(None)
            }
        }
    }

    /// Everything but the last reply. Answers the export that was entered, if one was.
    fn answer(
        &mut self,
        option: OptionKind,
        data: &[u8],
        replies: &mut OptionReplies<'_>,
    ) -> Result<Option<usize>, OptionError> {
        if option == OptionKind::SetMetaContext {
            // A selection replaces the last one even if it fails.
            self.agreed.status_of = None;
        }
        if self.stopping {
            return Err(shutdown());
        }
        match option {
            OptionKind::List => {
                option::expect_no_data(data)?;
                self.exports.list().iter().for_each(|export| replies.server(export));
            }
            OptionKind::StructuredReply => {
                option::expect_no_data(data)?;
                self.agreed.structured = true;
            }
            OptionKind::Info => drop(self.info(data, replies)?),
            OptionKind::Go => return self.info(data, replies).map(Some),
            OptionKind::ListMetaContext => self.list_meta_context(data, replies)?,
            OptionKind::SetMetaContext => self.set_meta_context(data, replies)?,
            OptionKind::ExportName | OptionKind::Abort => {
                unreachable!("these end the handshake and are answered apart")
            }
        }
        Ok(None)
    }

    fn info(&self, data: &[u8], replies: &mut OptionReplies<'_>) -> Result<usize, OptionError> {
        let request = InfoRequest::parse(data)?;
        let index = self.find(request.export)?;
        let export = &self.exports.list()[index];
        replies.info_export(export, self.agreed.structured);
        replies.info_asked(export, &request);
        Ok(index)
    }

    fn list_meta_context(
        &self,
        data: &[u8],
        replies: &mut OptionReplies<'_>,
    ) -> Result<(), OptionError> {
        let request = MetaRequest::parse(data)?;
        let index = self.find(request.export)?;
        if request.lists() && self.exports.list()[index].features.block_status {
            replies.base_allocation(0);
        }
        Ok(())
    }

    fn set_meta_context(
        &mut self,
        data: &[u8],
        replies: &mut OptionReplies<'_>,
    ) -> Result<(), OptionError> {
        if !self.agreed.structured {
            return Err(OptionError::invalid("metadata needs NBD_OPT_STRUCTURED_REPLY first"));
        }
        let request = MetaRequest::parse(data)?;
        let index = self.find(request.export)?;
        if request.base_allocation && self.exports.list()[index].features.block_status {
            self.agreed.status_of = Some(index);
            replies.base_allocation(wire::BASE_ALLOCATION_ID);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, OptionError> {
        self.exports.find(name).ok_or_else(|| OptionError::unknown_export(name))
    }

    fn session(&self, index: usize) -> Session {
        let export = &self.exports.list()[index];
        let style = if self.agreed.structured {
            Style::Structured { base_allocation: self.agreed.status_of == Some(index) }
        } else {
            Style::Simple
        };
        Session {
            export: index,
            size_bytes: export.size_bytes,
            features: export.features,
            block: export.block,
            style,
        }
    }

    fn expect(&mut self, state: State) {
        self.state = state;
        self.pending.clear();
    }
}

fn shutdown() -> OptionError {
    OptionError::new(wire::REP_ERR_SHUTDOWN, "the server is stopping")
}
