//! TLS: clients with a right, a wrong and no certificate, and clients without TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::image::{expect_same, make_image};
use super::pki::Authority;
use super::server::Tls;
use super::{Check, Folder, Server, Setup, Stage};
use crate::exec::{Call, Done};

const LIMIT: Duration = Duration::from_secs(120);
const ASKS_CLIENTS: Tls = Tls { mode: "required", asks_clients: true };
const ASKS_NOBODY: Tls = Tls { mode: "required", asks_clients: false };
const OPTIONAL: Tls = Tls { mode: "optional", asks_clients: false };

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::ours("copy over tcp", |stage| copy(stage, true)),
        Check::ours("copy over unix", |stage| copy(stage, false)),
        Check::ours("qemu-img convert and compare", convert),
        Check::ours("clients' certificates, nbdinfo", |stage| certificates(stage, nbdinfo)),
        Check::ours("clients' certificates, qemu-img", |stage| certificates(stage, qemu_img)),
        Check::ours("a server that the client does not trust", untrusted),
        Check::ours("required", required),
        Check::ours("optional", optional),
    ]
}

/// A server that shows a certificate, and who signed it.
struct Served {
    server: Server,
    authority: Authority,
}

impl Served {
    fn new(stage: &Stage, tls: Tls, tcp: bool) -> Result<Served> {
        let folder = Folder::new()?;
        let authority = Authority::new(&folder.join("authority"))?;
        authority.server(&folder)?;
        let setup = Setup { tls: Some(tls), tcp, ..Setup::new("file", stage.volume_bytes()) };
        Ok(Served { server: stage.serve_in(folder, &setup)?, authority })
    }

    /// A folder for a client that trusts the server, and shows a certificate of `signer` if any.
    fn client(&self, signer: Option<&Authority>) -> Result<PathBuf> {
        self.authority.client(self.server.join("client"), signer)
    }

    /// The address of `gold` for a client of libnbd with the files of `client`.
    fn uri(&self, client: &Path) -> String {
        let uri = self.server.uri("gold").replacen("nbd:", "nbds:", 1);
        let mark = if uri.contains('?') { '&' } else { '?' };
        format!("{uri}{mark}tls-certificates={}", client.display())
    }
}

/// Asks nbdinfo for the size of `gold`.
fn nbdinfo(served: &Served, client: &Path) -> Result<Done> {
    Call::new("nbdinfo").args(["--size", &served.uri(client)]).output()
}

/// Asks qemu-img for the size of `gold`.
fn qemu_img(served: &Served, client: &Path) -> Result<Done> {
    with_credentials(served, client, &["info"])?.output()
}

/// A call of qemu-img with `gold`, encrypted, as its last argument.
fn with_credentials(served: &Served, client: &Path, words: &[&str]) -> Result<Call> {
    let uri = served.server.uri("gold");
    let port = uri.split_once("127.0.0.1:").context("TLS for QEMU is tried over TCP")?.1;
    let port = port.split('/').next().unwrap_or_default();
    let credentials = format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", client.display());
    let target = format!(
        "driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port={port},file.export=gold,\
         file.tls-creds=tls0"
    );
    let (verb, rest) = words.split_first().context("a verb comes first")?;
    let call = Call::new("qemu-img").args([verb, "--object", &credentials, "--image-opts"]);
    Ok(call.args(rest).arg(target).limit(LIMIT))
}

/// Copies an image there and back over four connections.
fn copy(stage: &Stage, tcp: bool) -> Result<()> {
    let served = Served::new(stage, ASKS_NOBODY, tcp)?;
    let uri = served.uri(&served.client(None)?);
    let (image, back) = (served.server.join("image"), served.server.join("back"));
    make_image(&image, served.server.volume_bytes(), 5)?;
    let copy = || Call::new("nbdcopy").args(["--connections=4", "--flush"]).limit(LIMIT);
    copy().arg(&image).arg(&uri).ok()?;
    copy().arg(&uri).arg(&back).ok()?;
    expect_same(&image, &back)?;
    // Once more in small pieces, with many of them in flight.
    std::fs::remove_file(&back)?;
    copy().args(["--request-size=4096", "--requests=64"]).arg(&uri).arg(&back).ok()?;
    expect_same(&image, &back)?;
    served.server.stop().map(drop)
}

fn convert(stage: &Stage) -> Result<()> {
    let served = Served::new(stage, ASKS_CLIENTS, true)?;
    let client = served.client(Some(&served.authority))?;
    let image = served.server.join("image");
    make_image(&image, served.server.volume_bytes(), 6)?;
    let options = format!("driver=raw,file.filename={}", image.display());
    let convert = ["convert", "-n", "-m", "16", "-W", "--target-image-opts", &options];
    with_credentials(&served, &client, &convert)?.ok()?;
    with_credentials(&served, &client, &["compare", &options])?.ok()?;
    std::fs::write(&image, "another")?;
    let other = with_credentials(&served, &client, &["compare", &options])?.output()?;
    ensure!(!other.status.success(), "qemu-img does not tell images apart");
    served.server.stop().map(drop)
}

/// Who shows the right certificate is served; who shows a wrong one or none is not, and harms
/// nobody.
fn certificates(stage: &Stage, ask: fn(&Served, &Path) -> Result<Done>) -> Result<()> {
    let served = Served::new(stage, ASKS_CLIENTS, true)?;
    let stranger = Authority::new(&served.server.join("stranger"))?;
    let folder = |name: &str| served.server.join(name);
    let right = served.authority.client(folder("right"), Some(&served.authority))?;
    let wrong = served.authority.client(folder("wrong"), Some(&stranger))?;
    let none = served.authority.client(folder("none"), None)?;
    for (client, is_right) in [(&right, true), (&wrong, false), (&none, false), (&right, true)] {
        let done = ask(&served, client)?;
        let who = client.display();
        ensure!(done.status.success() == is_right, "{who}: {}: {}", done.status, done.words());
    }
    served.server.stop().map(drop)
}

/// Encryption is worth nothing if anybody can stand in the middle.
fn untrusted(stage: &Stage) -> Result<()> {
    let served = Served::new(stage, ASKS_NOBODY, true)?;
    let stranger = Authority::new(&served.server.join("stranger"))?;
    let client = stranger.client(served.server.join("client"), None)?;
    for ask in [nbdinfo, qemu_img] {
        let done = ask(&served, &client)?;
        ensure!(!done.status.success(), "a client trusts anybody: {}", done.words());
    }
    nbdinfo(&served, &served.client(None)?)?;
    served.server.stop().map(drop)
}

/// Nothing is told in the clear, and the refusal says what is missing.
fn required(stage: &Stage) -> Result<()> {
    let served = Served::new(stage, ASKS_NOBODY, true)?;
    let plain = served.server.uri("gold").replacen("nbds:", "nbd:", 1);
    for words in [&["--size"][..], &["--list"]] {
        let done = Call::new("nbdinfo").args(words).arg(&plain).output()?;
        ensure!(!done.status.success(), "served in the clear: {}", done.words());
        ensure!(!done.stdout.contains("gold"), "told in the clear: {}", done.stdout);
    }
    let done = Call::new("qemu-img").args(["info", "-f", "raw", &plain]).output()?;
    ensure!(!done.status.success(), "served in the clear: {}", done.words());
    ensure!(done.stderr.contains("TLS"), "no word of TLS: {}", done.words());
    let encrypted = nbdinfo(&served, &served.client(None)?)?;
    ensure!(encrypted.stdout.trim() == served.server.volume_bytes().to_string(), "{encrypted:?}");
    served.server.stop().map(drop)
}

/// Each client as it likes, on the same volume.
fn optional(stage: &Stage) -> Result<()> {
    let served = Served::new(stage, OPTIONAL, true)?;
    let plain = served.server.uri("gold");
    ensure!(plain.starts_with("nbd://"), "what is optional is announced as required: {plain}");
    let write = ["-f", "raw", "-c", "write -P 5 0 1M", plain];
    Call::new("qemu-io").args(write).ok()?;
    let client = served.client(None)?;
    let (clear, encrypted) = (served.server.join("clear"), served.server.join("encrypted"));
    Call::new("nbdcopy").arg(plain).arg(&clear).limit(LIMIT).ok()?;
    Call::new("nbdcopy").arg(served.uri(&client)).arg(&encrypted).limit(LIMIT).ok()?;
    expect_same(&clear, &encrypted)?;
    let done = Call::new("nbdinfo").arg(served.uri(&client)).ok()?;
    ensure!(done.stdout.contains("with TLS"), "not encrypted: {}", done.stdout);
    let done = Call::new("nbdinfo").arg(plain).ok()?;
    ensure!(done.stdout.contains("without TLS"), "encrypted unasked: {}", done.stdout);
    served.server.stop().map(drop)
}
