//! Options of the handshake: what a client may ask, and the answers' form.

use std::borrow::Cow;

use super::export::Export;
use super::session::Style;
use super::wire::{self, Fields};

/// The options that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionKind {
    ExportName,
    Abort,
    List,
    StartTls,
    Info,
    Go,
    StructuredReply,
    ListMetaContext,
    SetMetaContext,
    ExtendedHeaders,
}

/// What `NBD_OPT_INFO` and `NBD_OPT_GO` carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InfoRequest<'a> {
    pub(super) export: &'a str,
    pub(super) name: bool,
    pub(super) description: bool,
    pub(super) block_size: bool,
}

/// What `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT` carry, as far as this server's
/// one context is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetaRequest<'a> {
    pub(super) export: &'a str,
    /// No query at all, which asks for everything when listing.
    pub(super) no_query: bool,
    /// `base:` was among the queries, which asks for all of the namespace when listing.
    pub(super) base_wildcard: bool,
    /// `base:allocation` was among them.
    pub(super) base_allocation: bool,
}

/// Why an option is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OptionError {
    pub(super) kind: u32,
    pub(super) message: Cow<'static, str>,
}

impl OptionKind {
    pub(super) const fn from_wire(option: u32) -> Option<Self> {
        Some(match option {
            wire::OPT_EXPORT_NAME => OptionKind::ExportName,
            wire::OPT_ABORT => OptionKind::Abort,
            wire::OPT_LIST => OptionKind::List,
            wire::OPT_STARTTLS => OptionKind::StartTls,
            wire::OPT_INFO => OptionKind::Info,
            wire::OPT_GO => OptionKind::Go,
            wire::OPT_STRUCTURED_REPLY => OptionKind::StructuredReply,
            wire::OPT_LIST_META_CONTEXT => OptionKind::ListMetaContext,
            wire::OPT_SET_META_CONTEXT => OptionKind::SetMetaContext,
            wire::OPT_EXTENDED_HEADERS => OptionKind::ExtendedHeaders,
            _ => return None,
        })
    }

    pub(super) const fn to_wire(self) -> u32 {
        match self {
            OptionKind::ExportName => wire::OPT_EXPORT_NAME,
            OptionKind::Abort => wire::OPT_ABORT,
            OptionKind::List => wire::OPT_LIST,
            OptionKind::StartTls => wire::OPT_STARTTLS,
            OptionKind::Info => wire::OPT_INFO,
            OptionKind::Go => wire::OPT_GO,
            OptionKind::StructuredReply => wire::OPT_STRUCTURED_REPLY,
            OptionKind::ListMetaContext => wire::OPT_LIST_META_CONTEXT,
            OptionKind::SetMetaContext => wire::OPT_SET_META_CONTEXT,
            OptionKind::ExtendedHeaders => wire::OPT_EXTENDED_HEADERS,
        }
    }
}

impl OptionError {
    pub(super) fn new(kind: u32, message: impl Into<Cow<'static, str>>) -> Self {
        OptionError { kind, message: message.into() }
    }

    pub(super) fn invalid(message: &'static str) -> Self {
        OptionError::new(wire::REP_ERR_INVALID, message)
    }

    pub(super) fn unsupported() -> Self {
        OptionError::new(wire::REP_ERR_UNSUP, "this server does not know the option")
    }

    pub(super) fn shutdown() -> Self {
        OptionError::new(wire::REP_ERR_SHUTDOWN, "the server is stopping")
    }

    pub(super) fn tls_required() -> Self {
        let message = "this server wants an encrypted connection: begin with NBD_OPT_STARTTLS";
        OptionError::new(wire::REP_ERR_TLS_REQD, message)
    }

    pub(super) fn unknown_export(name: &str) -> Self {
        let message = if name.is_empty() {
            "this server has no default export: name one, NBD_OPT_LIST tells which".to_owned()
        } else {
            format!("this server has no such export, NBD_OPT_LIST tells which it has: {name:?}")
        };
        OptionError::new(wire::REP_ERR_UNKNOWN, message)
    }
}

/// Options that have no data are refused if they bring some.
pub(super) fn expect_no_data(data: &[u8]) -> Result<(), OptionError> {
    if data.is_empty() { Ok(()) } else { Err(OptionError::invalid("the option takes no data")) }
}

impl<'a> InfoRequest<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OptionError> {
        const SHORT: &str = "the option's data ends within a field";
        let mut fields = Fields::new(data);
        let export = string(&mut fields)?;
        let count = fields.u16().ok_or_else(|| OptionError::invalid(SHORT))?;
        let mut request =
            InfoRequest { export, name: false, description: false, block_size: false };
        for _ in 0..count {
            match fields.u16().ok_or_else(|| OptionError::invalid(SHORT))? {
                wire::INFO_NAME => request.name = true,
                wire::INFO_DESCRIPTION => request.description = true,
                wire::INFO_BLOCK_SIZE => request.block_size = true,
                // The export's own information is sent in any case, and unknown requests MUST be
                // passed over.
                _ => {}
            }
        }
        expect_end(&fields)?;
        Ok(request)
    }
}

impl<'a> MetaRequest<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OptionError> {
        let mut fields = Fields::new(data);
        let export = string(&mut fields)?;
        let count =
            fields.u32().ok_or_else(|| OptionError::invalid("the number of queries is missing"))?;
        let mut request = MetaRequest {
            export,
            no_query: count == 0,
            base_wildcard: false,
            base_allocation: false,
        };
        for _ in 0..count {
            match string(&mut fields)? {
                "base:" => request.base_wildcard = true,
                wire::BASE_ALLOCATION => request.base_allocation = true,
                // What is of another namespace, or an unknown leaf of ours, MUST be passed over.
                query if query.contains(':') => {}
                _ => return Err(OptionError::invalid("a query has a namespace and a colon")),
            }
        }
        expect_end(&fields)?;
        Ok(request)
    }

    /// Whether `NBD_OPT_LIST_META_CONTEXT` shows our context.
    pub(super) const fn lists(&self) -> bool {
        self.no_query || self.base_wildcard || self.base_allocation
    }
}

/// Takes a string with its length before it.
fn string<'a>(fields: &mut Fields<'a>) -> Result<&'a str, OptionError> {
    let len = fields.u32().ok_or_else(|| OptionError::invalid("a string's length is missing"))?;
    if len as usize > wire::MAX_STRING_BYTES {
        return Err(OptionError::invalid("a string is longer than 4096 bytes"));
    }
    let bytes = fields
        .bytes(len as usize)
        .ok_or_else(|| OptionError::invalid("a string is longer than the option's data"))?;
    text(bytes).ok_or_else(|| OptionError::invalid("a string is not UTF-8 or has a NUL"))
}

/// What the protocol calls a string: UTF-8 without NUL.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn expect_end(fields: &Fields<'_>) -> Result<(), OptionError> {
    if fields.is_empty() {
        Ok(())
    } else {
        Err(OptionError::invalid("the option's data goes on after its last field"))
    }
}

/// Writes the replies to one option.
pub(super) struct OptionReplies<'a> {
    option: u32,
    output: &'a mut Vec<u8>,
}

impl<'a> OptionReplies<'a> {
    pub(super) const fn new(option: u32, output: &'a mut Vec<u8>) -> Self {
        OptionReplies { option, output }
    }

    pub(super) fn ack(&mut self) {
        self.reply(wire::REP_ACK, &[]);
    }

    pub(super) fn error(&mut self, error: &OptionError) {
        self.reply(error.kind, &[wire::clip(&error.message).as_bytes()]);
    }

    /// An entry of the list, its description after its name.
    pub(super) fn server(&mut self, export: &Export) {
        // It fits: a name is at most 4096 bytes.
        let name_len = export.name.len() as u32;
        let name = export.name.as_bytes();
        let description = export.description.as_bytes();
        self.reply(wire::REP_SERVER, &[&name_len.to_be_bytes(), name, description]);
    }

    /// What is said of an export in any case.
    pub(super) fn info_export(&mut self, export: &Export, style: Style) {
        let flags = export.features.to_wire(style);
        self.info(wire::INFO_EXPORT, &[&export.size_bytes.to_be_bytes(), &flags.to_be_bytes()]);
    }

    /// What is said of an export when asked for.
    pub(super) fn info_asked(&mut self, export: &Export, request: &InfoRequest<'_>) {
        if request.name {
            self.info(wire::INFO_NAME, &[export.name.as_bytes()]);
        }
        if request.description && !export.description.is_empty() {
            self.info(wire::INFO_DESCRIPTION, &[export.description.as_bytes()]);
        }
        if request.block_size {
            let block = &export.block;
            let sizes = [block.min_bytes, block.preferred_bytes, block.max_payload_bytes];
            let sizes = sizes.map(u32::to_be_bytes);
            self.info(wire::INFO_BLOCK_SIZE, &[sizes.as_flattened()]);
        }
    }

    /// Our one metadata context. Its number is reserved when listing.
    pub(super) fn base_allocation(&mut self, id: u32) {
        let parts = [&id.to_be_bytes()[..], wire::BASE_ALLOCATION.as_bytes()];
        self.reply(wire::REP_META_CONTEXT, &parts);
    }

    fn info(&mut self, kind: u16, parts: &[&[u8]]) {
        let kind = kind.to_be_bytes();
        let mut all: [&[u8]; 3] = [&kind, &[], &[]];
        all[1..=parts.len()].copy_from_slice(parts);
        self.reply(wire::REP_INFO, &all);
    }

    fn reply(&mut self, kind: u32, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.output.extend_from_slice(&wire::OPTION_REPLY_MAGIC.to_be_bytes());
        self.output.extend_from_slice(&self.option.to_be_bytes());
        self.output.extend_from_slice(&kind.to_be_bytes());
        // It fits: the parts are strings of at most 4096 bytes and a few numbers.
        self.output.extend_from_slice(&(len as u32).to_be_bytes());
        parts.iter().for_each(|part| self.output.extend_from_slice(part));
    }
}
