//! Certificates for one check, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Folder;
use crate::exec::Call;

/// An authority, by the folder that its files lie in. They are named as libnbd and QEMU expect it
/// of a client's folder: `ca-cert.pem`, `client-cert.pem`, `client-key.pem`.
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes one, with its files in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Authority> {
        fs::create_dir_all(folder)?;
        let authority = Authority { folder: folder.to_owned() };
        let call = openssl(&authority.folder).args(["req", "-x509"]);
        call.args(KEY)
            .args(["-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=authority"])
            .args(["-addext", "keyUsage=critical,keyCertSign"])
            .ok()?;
        Ok(authority)
    }

    /// Makes a server's certificate and key, in `folder` beside the authority's certificate.
    pub(crate) fn server(&self, folder: &Folder) -> Result<()> {
        self.sign("server", "serverAuth", "subjectAltName=DNS:localhost,IP:127.0.0.1")?;
        for name in ["server-cert.pem", "server-key.pem", "ca-cert.pem"] {
            fs::copy(self.folder.join(name), folder.join(name))?;
        }
        Ok(())
    }

    /// A folder for a client that trusts this authority and shows a certificate of `signer`, or
    /// none.
    pub(crate) fn client(&self, folder: PathBuf, signer: Option<&Authority>) -> Result<PathBuf> {
        fs::create_dir_all(&folder)?;
        fs::copy(self.folder.join("ca-cert.pem"), folder.join("ca-cert.pem"))?;
        if let Some(signer) = signer {
            signer.sign("client", "clientAuth", "subjectAltName=DNS:client")?;
            for name in ["client-cert.pem", "client-key.pem"] {
                fs::copy(signer.folder.join(name), folder.join(name))?;
            }
        }
        Ok(folder)
    }

    fn sign(&self, whose: &str, purpose: &str, names: &str) -> Result<()> {
        let (key, request) = (format!("{whose}-key.pem"), format!("{whose}.csr"));
        let subject = format!("/CN={whose}");
        let call = openssl(&self.folder).arg("req").args(KEY);
        call.args(["-keyout", &key, "-out", &request, "-subj", &subject]).ok()?;
        let extensions = format!("extendedKeyUsage={purpose}\n{names}\n");
        fs::write(self.folder.join("extensions"), extensions)?;
        openssl(&self.folder)
            .args(["x509", "-req", "-days", "2", "-in", &request, "-extfile", "extensions"])
            .args(["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"])
            .args(["-out", &format!("{whose}-cert.pem")])
            .ok()
            .map(drop)
    }
}

/// A new key, kept without a password.
const KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn openssl(folder: &Path) -> Call {
    Call::new("openssl").dir(folder)
}
