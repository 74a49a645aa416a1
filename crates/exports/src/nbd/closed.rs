//! How a handshake ends in no session.

use thiserror::Error;

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
    /// `NBD_OPT_EXPORT_NAME` after extended headers were agreed, which forbid it.
    #[error(
        "the client named its export by NBD_OPT_EXPORT_NAME after extended headers were agreed"
    )]
    ExportNameExtended,
    /// `NBD_OPT_EXPORT_NAME` on a connection that is not encrypted, though it must be.
    #[error("the client asked for an export without TLS, which this server requires")]
    TlsRequired,
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
