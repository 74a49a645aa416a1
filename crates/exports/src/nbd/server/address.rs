//! Where a server listens, as people write it and as clients are told it.

use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::nbd::TlsPolicy;

/// Where a server listens. Written `unix:/run/blkmq/nbd.sock` or `tcp:127.0.0.1:10809`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A unix socket at this path.
    Unix(PathBuf),
    /// A TCP port; port 0 stands for any that is free.
    Tcp(SocketAddr),
}

/// What was written is no address to listen at.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "cannot listen at {0:?}\nwrite unix:/path/to/socket, tcp:127.0.0.1:10809 or tcp:[::1]:10809"
)]
pub struct AddressError(String);

impl ListenAddress {
    /// The NBD URI by which a client finds `export` here; by TLS, if that is required.
    pub fn uri(&self, export: &str, tls: TlsPolicy) -> String {
        let mut uri = String::from(if tls == TlsPolicy::Required { "nbds" } else { "nbd" });
        match self {
            ListenAddress::Unix(path) => {
                uri.push_str("+unix:///");
                encode(&mut uri, export.as_bytes());
                uri.push_str("?socket=");
                encode(&mut uri, path.as_os_str().as_bytes());
            }
            ListenAddress::Tcp(address) => {
                write!(uri, "://{address}/").expect("a string takes whatever is written");
                encode(&mut uri, export.as_bytes());
            }
        }
        uri
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() && !path.contains('\0') => {
                Ok(ListenAddress::Unix(PathBuf::from(path)))
            }
            Some(("tcp", address)) => address.parse().map(ListenAddress::Tcp).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

/// Appends `bytes` with everything percent-encoded but what stands for itself anywhere in a URI,
/// and slashes.
fn encode(uri: &mut String, bytes: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            write!(uri, "%{byte:02X}").expect("a string takes whatever is written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["unix:/run/a b.sock", "tcp:127.0.0.1:10809", "tcp:[::1]:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "/run/x", "tcp:localhost", "tcp:127.0.0.1", "udp:127.0.0.1:1"] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert_eq!(error.to_string().lines().count(), 2);
        }
    }

    #[test]
    fn uris_are_encoded() {
        let plain = |address: &ListenAddress, export| address.uri(export, TlsPolicy::Optional);
        let unix: ListenAddress = "unix:/run/a b&c.sock".parse().unwrap();
        assert_eq!(plain(&unix, "gold"), "nbd+unix:///gold?socket=/run/a%20b%26c.sock");
        let tcp: ListenAddress = "tcp:127.0.0.1:10809".parse().unwrap();
        assert_eq!(plain(&tcp, "gold"), "nbd://127.0.0.1:10809/gold");
        assert_eq!(plain(&tcp, "ä?"), "nbd://127.0.0.1:10809/%C3%A4%3F");
        let six: ListenAddress = "tcp:[::1]:10809".parse().unwrap();
        assert_eq!(plain(&six, "gold"), "nbd://[::1]:10809/gold");
    }

    #[test]
    fn uris_tell_of_tls_that_is_required() {
        let unix: ListenAddress = "unix:/run/nbd.sock".parse().unwrap();
        let uri = unix.uri("gold", TlsPolicy::Required);
        assert_eq!(uri, "nbds+unix:///gold?socket=/run/nbd.sock");
        let tcp: ListenAddress = "tcp:127.0.0.1:10809".parse().unwrap();
        assert_eq!(tcp.uri("gold", TlsPolicy::Required), "nbds://127.0.0.1:10809/gold");
    }
}
