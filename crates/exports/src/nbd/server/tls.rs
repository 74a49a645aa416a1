//! The server's identity for TLS, from its files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;

use crate::nbd::TlsPolicy;

/// Whether clients may, or must, encrypt their connections, and as whom they then find the server.
#[derive(Clone, Debug, Default)]
pub enum Tls {
    /// They cannot.
    #[default]
    Off,
    /// Each as it likes.
    Optional(Identity),
    /// Nothing is told or served before.
    Required(Identity),
}

/// The files that make an identity, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The server's certificate, and after it those that lead to one that clients trust.
    pub cert: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 (RSA) or SEC 1 (elliptic curves).
    pub key: PathBuf,
    /// Certificates of authorities. If there are any, a client must show a certificate that one of
    /// them has signed.
    pub client_ca: Option<PathBuf>,
}

/// What the server shows to clients who ask for TLS, and asks to be shown by them. TLS 1.2 and 1.3.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) config: Arc<ServerConfig>,
}

/// Which of the files of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityFile {
    /// [`IdentityFiles::cert`].
    Cert,
    /// [`IdentityFiles::key`].
    Key,
    /// [`IdentityFiles::client_ca`].
    ClientCa,
}

/// Why files make no identity. The first line says what is wrong, the second how to mend it.
#[derive(Debug, Error)]
#[error("{}: {what}\n{mend}", .path.display())]
pub struct IdentityError {
    /// Which file is wrong.
    pub file: IdentityFile,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What can be done about it.
    pub mend: &'static str,
}

impl Tls {
    /// What of it the handshake knows.
    pub const fn policy(&self) -> TlsPolicy {
        match self {
            Tls::Off => TlsPolicy::Off,
            Tls::Optional(_) => TlsPolicy::Optional,
            Tls::Required(_) => TlsPolicy::Required,
        }
    }

    pub(super) const fn identity(&self) -> Option<&Identity> {
        match self {
            Tls::Off => None,
            Tls::Optional(identity) | Tls::Required(identity) => Some(identity),
        }
    }
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If one cannot be read or does not hold what it should, or if certificate and key do not
    /// belong together.
    pub fn load(files: &IdentityFiles) -> Result<Self, IdentityError> {
        let chain = certificates(IdentityFile::Cert, &files.cert)?;
        let key = private_key(&files.key)?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions that it comes with");
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| IdentityError::new(IdentityFile::ClientCa, path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => IdentityError {
                mend: "name the key for which the certificate was made",
                ..IdentityError::new(IdentityFile::Key, &files.key, "is not the certificate's key")
            },
            error => IdentityError::new(IdentityFile::Cert, &files.cert, error),
        })?;
        // A client connects once and stays: sessions to be taken up again would only hold memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Identity { config: Arc::new(config) })
    }
}

impl IdentityError {
    fn new(file: IdentityFile, path: &Path, what: impl ToString) -> Self {
        let mend = match file {
            IdentityFile::Cert => {
                "name a PEM file with the server's certificate (version 3) and those above it"
            }
            IdentityFile::Key => "name a PEM file with the certificate's private key",
            IdentityFile::ClientCa => {
                "name a PEM file with the certificates of those who sign clients' certificates"
            }
        };
        IdentityError { file, path: path.to_owned(), what: what.to_string(), mend }
    }
}

fn read(file: IdentityFile, path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::NotFound => "create the file, or name another",
            io::ErrorKind::PermissionDenied => "let the server's user read it",
            _ => "mend what the kernel complains of, or name another file",
        };
        IdentityError { mend, ..IdentityError::new(file, path, format!("cannot be read: {error}")) }
    })
}

fn certificates(
    file: IdentityFile,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read(file, path)?;
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| IdentityError::new(file, path, error))?;
    if all.is_empty() {
        return Err(IdentityError::new(file, path, "holds no certificate"));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let bytes = read(IdentityFile::Key, path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let what = "holds no private key that is readable without a password";
            IdentityError::new(IdentityFile::Key, path, what)
        }
        error => IdentityError::new(IdentityFile::Key, path, error),
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(IdentityFile::ClientCa, path)? {
        roots
            .add(certificate)
            .map_err(|error| IdentityError::new(IdentityFile::ClientCa, path, error))?;
    }
    Ok(roots)
}
