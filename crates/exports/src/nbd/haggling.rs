//! What options are answered: the server's side of option haggling, once an option's data is there.

use std::sync::Arc;

use super::closed::Closed;
use super::export::Exports;
use super::option::{self, InfoRequest, MetaRequest, OptionError, OptionKind, OptionReplies};
use super::session::{Headers, Session, Style};
use super::wire;

/// Whether clients may, or must, encrypt their connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// They cannot.
    #[default]
    Off,
    /// Each as it likes.
    Optional,
    /// Nothing is told or served before.
    Required,
}

/// Option haggling: what was agreed so far, and over what.
#[derive(Debug)]
pub(super) struct Haggling {
    exports: Arc<Exports>,
    channel: Channel,
    agreed: Agreed,
    stopping: bool,
}

/// What an option leads to.
#[derive(Debug)]
pub(super) enum Next {
    /// Another option.
    Option,
    /// TLS, and then another option.
    StartTls,
    /// Requests.
    Transmission(Session),
}

/// What the options travel by.
#[derive(Clone, Copy, Debug)]
enum Channel {
    Plain(TlsPolicy),
    Encrypted,
}

/// The form of replies that was agreed, and what depends on it.
#[derive(Clone, Copy, Debug)]
enum Agreed {
    Simple,
    Chunks {
        headers: Headers,
        /// The export for which `base:allocation` was selected; it counts for that one alone.
        status_of: Option<usize>,
    },
}

impl Haggling {
    pub(super) const fn new(exports: Arc<Exports>, tls: TlsPolicy) -> Self {
        let channel = Channel::Plain(tls);
        Haggling { exports, channel, agreed: Agreed::Simple, stopping: false }
    }

    pub(super) const fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn nr_exports(&self) -> usize {
        self.exports.list().len()
    }

    /// Answers `NBD_OPT_EXPORT_NAME`, with `padding` after the answer.
    pub(super) fn export_name(
        &self,
        name: &[u8],
        padding: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Next, Closed> {
        if self.stopping {
            return Err(Closed::Stopping);
        }
        if self.lacks_tls() {
            return Err(Closed::TlsRequired);
        }
        if matches!(self.agreed, Agreed::Chunks { headers: Headers::Extended, .. }) {
            return Err(Closed::ExportNameExtended);
        }
        let name = option::text(name).ok_or(Closed::BadExportName)?;
        let index =
            self.exports.find(name).ok_or_else(|| Closed::UnknownExport(name.to_owned()))?;
        let export = &self.exports.list()[index];
        output.extend_from_slice(&export.size_bytes.to_be_bytes());
        let flags = export.features.to_wire(self.agreed.style(index));
        output.extend_from_slice(&flags.to_be_bytes());
        output.extend_from_slice(padding);
        Ok(Next::Transmission(self.session(index)))
    }

    /// Answers any other option that this server knows.
    pub(super) fn option(
        &mut self,
        option: OptionKind,
        data: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Next, Closed> {
        let mut replies = OptionReplies::new(option.to_wire(), output);
        if option == OptionKind::Abort {
            replies.ack();
            return Err(Closed::Aborted);
        }
        match self.answer(option, data, &mut replies) {
            Ok(next) => {
                replies.ack();
                Ok(next)
            }
            Err(error) => {
                replies.error(&error);
                Ok(Next::Option)
            }
        }
    }

    /// Answers an option whose data was passed over, because it is too long or the option is
    /// unknown, for which stands `error`.
    pub(super) fn passed_over(&mut self, option: u32, error: OptionError, output: &mut Vec<u8>) {
        if option == wire::OPT_SET_META_CONTEXT {
            self.agreed.deselect();
        }
        let error = self.refusal_of_all(OptionKind::from_wire(option)).unwrap_or(error);
        OptionReplies::new(option, output).error(&error);
    }

    /// Everything but the last reply.
    fn answer(
        &mut self,
        option: OptionKind,
        data: &[u8],
        replies: &mut OptionReplies<'_>,
    ) -> Result<Next, OptionError> {
        if option == OptionKind::SetMetaContext {
            // A selection replaces the last one even if it fails.
            self.agreed.deselect();
        }
        if let Some(error) = self.refusal_of_all(Some(option)) {
            return Err(error);
        }
        match option {
            OptionKind::List => {
                option::expect_no_data(data)?;
                self.exports.list().iter().for_each(|export| replies.server(export));
            }
            OptionKind::StartTls => {
                option::expect_no_data(data)?;
                return self.start_tls();
            }
            OptionKind::StructuredReply => {
                option::expect_no_data(data)?;
                self.structured_reply()?;
            }
            OptionKind::ExtendedHeaders => {
                option::expect_no_data(data)?;
                self.extended_headers()?;
            }
            OptionKind::Info => drop(self.info(data, replies)?),
            OptionKind::Go => {
                let index = self.info(data, replies)?;
                return Ok(Next::Transmission(self.session(index)));
            }
            OptionKind::ListMetaContext => self.list_meta_context(data, replies)?,
            OptionKind::SetMetaContext => self.set_meta_context(data, replies)?,
            OptionKind::ExportName | OptionKind::Abort => {
                unreachable!("these end the handshake and are answered apart")
            }
        }
        Ok(Next::Option)
    }

    /// What every option is refused with for now, whatever it says.
    fn refusal_of_all(&self, option: Option<OptionKind>) -> Option<OptionError> {
        if self.stopping {
            Some(OptionError::shutdown())
        } else if self.lacks_tls() && option != Some(OptionKind::StartTls) {
            Some(OptionError::tls_required())
        } else {
            None
        }
    }

    const fn lacks_tls(&self) -> bool {
        matches!(self.channel, Channel::Plain(TlsPolicy::Required))
    }

    /// Forgets what was agreed in the clear, where anybody on the way could have said it.
    fn start_tls(&mut self) -> Result<Next, OptionError> {
        match self.channel {
            Channel::Encrypted => Err(OptionError::invalid("the connection is encrypted already")),
            Channel::Plain(TlsPolicy::Off) => {
                let message = "this server is not configured for TLS";
                Err(OptionError::new(wire::REP_ERR_POLICY, message))
            }
            Channel::Plain(TlsPolicy::Optional | TlsPolicy::Required) => {
                self.channel = Channel::Encrypted;
                self.agreed = Agreed::Simple;
                Ok(Next::StartTls)
            }
        }
    }

    fn structured_reply(&mut self) -> Result<(), OptionError> {
        match self.agreed {
            Agreed::Simple => {
                self.agreed = Agreed::Chunks { headers: Headers::Compact, status_of: None };
                Ok(())
            }
            Agreed::Chunks { headers: Headers::Compact, .. } => Ok(()),
            Agreed::Chunks { headers: Headers::Extended, .. } => {
                let message = "extended headers were agreed, which go beyond structured replies";
                Err(OptionError::new(wire::REP_ERR_EXT_HEADER_REQD, message))
            }
        }
    }

    fn extended_headers(&mut self) -> Result<(), OptionError> {
        let status_of = match self.agreed {
            Agreed::Simple => None,
            Agreed::Chunks { headers: Headers::Compact, status_of } => status_of,
            Agreed::Chunks { headers: Headers::Extended, .. } => {
                return Err(OptionError::invalid("extended headers were agreed already"));
            }
        };
        self.agreed = Agreed::Chunks { headers: Headers::Extended, status_of };
        Ok(())
    }

    fn info(&self, data: &[u8], replies: &mut OptionReplies<'_>) -> Result<usize, OptionError> {
        let request = InfoRequest::parse(data)?;
        let index = self.find(request.export)?;
        let export = &self.exports.list()[index];
        replies.info_export(export, self.agreed.style(index));
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
        let Agreed::Chunks { headers, .. } = self.agreed else {
            return Err(OptionError::invalid("metadata needs NBD_OPT_STRUCTURED_REPLY first"));
        };
        let request = MetaRequest::parse(data)?;
        let index = self.find(request.export)?;
        if request.base_allocation && self.exports.list()[index].features.block_status {
            self.agreed = Agreed::Chunks { headers, status_of: Some(index) };
            replies.base_allocation(wire::BASE_ALLOCATION_ID);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, OptionError> {
        self.exports.find(name).ok_or_else(|| OptionError::unknown_export(name))
    }

    fn session(&self, index: usize) -> Session {
        let export = &self.exports.list()[index];
        Session {
            export: index,
            size_bytes: export.size_bytes,
            features: export.features,
            block: export.block,
            style: self.agreed.style(index),
        }
    }
}

impl Agreed {
    /// How a session over the export at `index` is answered.
    fn style(self, index: usize) -> Style {
        match self {
            Agreed::Simple => Style::Simple,
            Agreed::Chunks { headers, status_of } => {
                Style::Chunks { headers, base_allocation: status_of == Some(index) }
            }
        }
    }

    const fn deselect(&mut self) {
        if let Agreed::Chunks { status_of, .. } = self {
            *status_of = None;
        }
    }
}
