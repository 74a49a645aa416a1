//! `export.nbd.tls`: how connections are encrypted.

use std::path::PathBuf;

use blkmq_exports::nbd::server::{Identity, IdentityFile, IdentityFiles};

use super::Surroundings;
use super::reader::{Field, Table};

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Who the server is, and whom its clients have to be vouched for by.
    pub(crate) files: IdentityFiles,
    /// Clients that do not ask for TLS are told nothing.
    pub(crate) is_required: bool,
}

pub(super) const REQUIRED: &str = "required";
pub(super) const OPTIONAL: &str = "optional";

/// Reads `export.nbd.tls`, noting what is wrong with it and with the files that it names.
pub(super) fn read(field: &Field<'_>, around: &Surroundings) -> Option<Tls> {
    let table = field.table()?;
    table.only(&["cert", "key", "client_ca", "mode"], &[]);
    let cert = read_path(&table, "cert", around);
    let key = read_path(&table, "key", around);
    let client_ca = table.get("client_ca").map(|field| path_of(field, around));
    let is_required = table.get("mode").map_or(Some(true), read_mode);
    let client_ca = match client_ca {
        None => None,
        Some(path) => Some(path?),
    };
    let tls = Tls {
        files: IdentityFiles { cert: cert?, key: key?, client_ca },
        is_required: is_required?,
    };
    // Told now, with its place, what is wrong with a file costs nothing that runs.
    if let Err(error) = Identity::load(&tls.files) {
        let key = match error.file {
            IdentityFile::Cert => "cert",
            IdentityFile::Key => "key",
            IdentityFile::ClientCa => "client_ca",
        };
        let what = format!("{} {}", error.path.display(), error.what);
        match table.get(key) {
            Some(field) => field.complain(what, error.mend),
            None => table.complain(what, error.mend),
        }
    }
    Some(tls)
}

fn read_mode(field: &Field<'_>) -> Option<bool> {
    let word = field.text()?;
    let mode = [(REQUIRED, true), (OPTIONAL, false)].into_iter().find(|(name, _)| *name == word);
    if mode.is_none() {
        field.wrong_word("mode", word, &[REQUIRED, OPTIONAL]);
    }
    mode.map(|(_, is_required)| is_required)
}

fn read_path(table: &Table<'_>, key: &str, around: &Surroundings) -> Option<PathBuf> {
    match table.get(key) {
        Some(field) => path_of(field, around),
        None => {
            let what = format!("TLS needs a certificate and its key, and there is no `{key}`");
            table.complain(what, format!("add {key} = \"/path/to/{key}.pem\""));
            None
        }
    }
}

fn path_of(field: &Field<'_>, around: &Surroundings) -> Option<PathBuf> {
    let text = field.text()?;
    if text.is_empty() {
        let what = format!("`{}` has no path", field.path);
        field.complain(what, format!("write the path of a PEM file, as in \"{}.pem\"", field.key));
        return None;
    }
    Some(around.base_dir.join(text))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::super::{Config, parse};
    use super::*;
    use crate::complaint::Complaints;

    /// A folder with a certificate, its key, and another's key.
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        fs::write(folder.path().join("other.pem"), other.serialize_pem()).unwrap();
        folder
    }

    fn read_in(folder: &Path, tls: &str) -> Result<Config, Complaints> {
        let state_dir = "/state".into();
        let around = Surroundings { state_dir, base_dir: folder.to_owned(), cpus: 1 };
        parse("t.toml", &format!("[export.nbd]\ntls = {tls}\n"), &around)
    }

    #[test]
    fn tls_is_read_and_printed() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        for (mode, is_required) in
            [("", true), (", mode = 'required'", true), (", mode = 'optional'", false)]
        {
            for (client_ca, expected) in
                [("", None), (", client_ca = 'cert.pem'", Some(path("cert.pem")))]
            {
                let tls = format!("{{ cert = 'cert.pem', key = 'key.pem'{client_ca}{mode} }}");
                let config = read_in(folder.path(), &tls).unwrap();
                let files = IdentityFiles {
                    cert: path("cert.pem"),
                    key: path("key.pem"),
                    client_ca: expected,
                };
                assert_eq!(config.nbd.tls, Some(Tls { files, is_required }));
                let printed = config.to_string();
                let around = Surroundings { state_dir: "/".into(), base_dir: "/".into(), cpus: 1 };
                assert_eq!(parse("printed", &printed, &around).unwrap(), config, "{printed}");
            }
        }
    }

    #[test]
    fn a_wrong_file_is_told_at_its_place() {
        let folder = folder();
        let place = |tls: &str| {
            let told = read_in(folder.path(), tls).unwrap_err().to_string();
            told.split(": ").next().unwrap().to_owned()
        };
        assert_eq!(place("{ cert = 'none.pem', key = 'key.pem' }"), "t.toml:2:16");
        assert_eq!(place("{ cert = 'cert.pem', key = 'other.pem' }"), "t.toml:2:34");
        let unsigned = "{ cert = 'cert.pem', key = 'key.pem', client_ca = 'key.pem' }";
        assert_eq!(place(unsigned), "t.toml:2:57");
    }
}
