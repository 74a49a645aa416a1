//! Clients that ask for TLS, and clients that do not.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blkmq_drivers::Memory;
use blkmq_exports::nbd::server::{Identity, IdentityFile, IdentityFiles, ListenAddress, Tls};
use rustls::crypto::ring::default_provider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::authority::{Authority, Signed};
use crate::client::{
    Client, DISC, FLUSH, OPT_LIST, OPT_STARTTLS, READ, REP_ACK, option_bytes, pattern, request,
    write_request,
};
use crate::fixture::{Folder, SIZE_BYTES, Server, Wanted};

const REP_ERR_TLS_REQD: u32 = 0x8000_0005;

type Encrypted<S = UnixStream> = Client<StreamOwned<ClientConnection, S>>;

/// A server over memory, and who signed its certificate.
struct Setup {
    server: Server,
    authority: Authority,
    _folder: Folder,
}

impl Setup {
    fn new(tls: fn(Identity) -> Tls, client_ca: Option<&Authority>) -> Self {
        Setup::with(tls, client_ca, Wanted::default())
    }

    fn with(tls: fn(Identity) -> Tls, client_ca: Option<&Authority>, wanted: Wanted) -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let identity = Identity::load(&authority.files(folder.path(), client_ca)).unwrap();
        let wanted = Wanted { tls: tls(identity), ..wanted };
        let server = Server::with(Memory::new(SIZE_BYTES), &wanted);
        Setup { server, authority, _folder: folder }
    }

    /// A client that has asked for TLS, and shows nothing.
    fn client(&self) -> Encrypted {
        let stream = Client::connect(&self.server.path).stream;
        upgrade(stream, &self.authority, None, &[&TLS13, &TLS12])
    }

    fn enter(&self) -> Encrypted {
        let mut client = self.client();
        assert_eq!(client.go("gold").last().unwrap().0, REP_ACK);
        client
    }
}

/// Asks for TLS on a stream that is not greeted yet, and begins it.
fn upgrade<S: Read + Write>(
    stream: S,
    authority: &Authority,
    shown: Option<&Signed>,
    versions: &[&'static SupportedProtocolVersion],
) -> Encrypted<S> {
    let mut plain = Client { stream };
    plain.greet();
    assert_eq!(plain.option(OPT_STARTTLS, &[]), [(REP_ACK, Vec::new())]);
    let mut roots = RootCertStore::empty();
    let trusted = Signed { cert: authority.cert(), key: String::new() };
    roots.add(trusted.chain().remove(0)).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(shown) => config.with_client_auth_cert(shown.chain(), shown.private_key()).unwrap(),
    };
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    Client { stream: StreamOwned::new(connection, plain.stream) }
}

/// Whether a client that shows `shown` is served.
fn is_served(
    setup: &Setup,
    shown: Option<&Signed>,
    version: &'static SupportedProtocolVersion,
) -> bool {
    let stream = Client::connect(&setup.server.path).stream;
    let mut client = upgrade(stream, &setup.authority, shown, &[version]);
    let sent = client.stream.write_all(&option_bytes(OPT_LIST, &[]));
    let mut reply = [0; 20];
    sent.and_then(|()| client.stream.read_exact(&mut reply)).is_ok()
}

#[test]
fn what_is_written_is_read() {
    for version in [&TLS12, &TLS13] {
        let setup = Setup::new(Tls::Required, None);
        let stream = Client::connect(&setup.server.path).stream;
        let mut client = upgrade(stream, &setup.authority, None, &[version]);
        assert_eq!(client.go("gold").last().unwrap().0, REP_ACK);
        // Shorter and longer than a record, and longer than is read at a time.
        for (seed, len) in [512, 4096, 16384, 65536, 300 << 10, 4 << 20].into_iter().enumerate() {
            let data = pattern(seed as u64, len);
            let offset = (seed << 23) as u64;
            assert_eq!(client.write_at(offset, &data), 0);
            assert!(client.read_at(offset, len as u32) == data, "{len} bytes");
        }
        assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
        setup.server.stop();
    }
}

#[test]
fn where_it_is_optional_plain_clients_are_served_too() {
    let setup = Setup::new(Tls::Optional, None);
    let data = pattern(1, 65536);
    assert_eq!(setup.enter().write_at(0, &data), 0);
    assert!(setup.server.client().read_at(0, 65536) == data);
    setup.server.stop();
}

#[test]
fn where_it_is_required_plain_clients_are_told_nothing() {
    let setup = Setup::new(Tls::Required, None);
    let mut plain = Client::connect(&setup.server.path);
    plain.greet();
    for replies in [plain.go("gold"), plain.option(OPT_LIST, &[]), plain.option(99, &[])] {
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].0, REP_ERR_TLS_REQD);
    }
    let mut old = Client::connect(&setup.server.path);
    old.greet();
    old.write(&option_bytes(1, b"gold"));
    assert!(old.is_closed());
    setup.server.stop();
}

#[test]
fn clients_show_the_right_certificate_or_go() {
    let (clients, strangers) = (Authority::new(), Authority::new());
    let setup = Setup::new(Tls::Required, Some(&clients));
    let (right, wrong) = (clients.client(), strangers.client());
    // A server's certificate says that it is none of a client.
    let misused = clients.server();
    for version in [&TLS12, &TLS13] {
        assert!(is_served(&setup, Some(&right), version));
        assert!(!is_served(&setup, None, version));
        assert!(!is_served(&setup, Some(&wrong), version));
        assert!(!is_served(&setup, Some(&misused), version));
    }
    setup.server.stop();
}

/// Whose certificate is refused is told so, and not just cut off.
#[test]
fn a_refused_certificate_is_told_of_over_tcp() {
    let clients = Authority::new();
    let mut setup = Setup::new(Tls::Required, Some(&clients));
    let at = setup.server.listen(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    let ListenAddress::Tcp(at) = at else { panic!("it listens at {at}") };
    let stream = std::net::TcpStream::connect(at).unwrap();
    let mut client = upgrade(stream, &setup.authority, None, &[&TLS13]);
    client.stream.write_all(&option_bytes(OPT_LIST, &[])).unwrap();
    let error = client.stream.read_exact(&mut [0; 20]).unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    setup.server.stop();
}

#[test]
fn many_requests_may_be_under_way() {
    let setup = Setup::new(Tls::Required, None);
    let mut client = setup.enter();
    let count = 100_u64;
    let mut stream = Vec::new();
    for cookie in 0..count {
        stream.extend(write_request(cookie, 0, cookie * 8192, &pattern(cookie, 8192)));
    }
    client.write(&stream);
    let mut cookies: Vec<u64> = (0..count)
        .map(|_| {
            let (cookie, error) = client.reply();
            assert_eq!(error, 0);
            cookie
        })
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..count));
    let reads: Vec<u8> =
        (0..count).flat_map(|cookie| request(cookie, READ, 0, cookie * 8192, 8192)).collect();
    client.write(&reads);
    for _ in 0..count {
        let (cookie, error) = client.reply();
        assert_eq!(error, 0);
        assert!(client.read(8192) == pattern(cookie, 8192));
    }
    setup.server.stop();
}

/// A stream that sends and receives a byte at a time.
struct Trickle(UnixStream);

impl Read for Trickle {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = bytes.len().min(1);
        self.0.read(&mut bytes[..len])
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::yield_now();
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_client_may_trickle() {
    let setup = Setup::new(Tls::Required, None);
    let stream = Trickle(Client::connect(&setup.server.path).stream);
    let mut client = upgrade(stream, &setup.authority, None, &[&TLS13]);
    assert_eq!(client.go("gold").last().unwrap().0, REP_ACK);
    let data = pattern(5, 20_480);
    assert_eq!(client.write_at(512, &data), 0);
    assert!(client.read_at(512, 20_480) == data);
    setup.server.stop();
}

#[test]
fn a_leave_ends_tls_in_good_order() {
    let setup = Setup::new(Tls::Required, None);
    let mut client = setup.enter();
    let data = pattern(8, 8192);
    assert_eq!(client.write_at(0, &data), 0);
    client.write(&[request(1, READ, 0, 0, 8192), request(0, DISC, 0, 0, 0)].concat());
    let mut rest = Vec::new();
    // It fails with UnexpectedEof unless TLS was ended.
    client.stream.read_to_end(&mut rest).unwrap();
    assert!(rest[16..] == data);
    setup.server.stop();
}

#[test]
fn a_stopping_server_ends_tls_in_good_order() {
    let setup = Setup::new(Tls::Required, None);
    let mut client = setup.enter();
    let stopped = thread::spawn(move || setup.server.stop());
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    stopped.join().unwrap();
}

#[test]
fn a_reader_that_does_not_read_is_held_back_and_nobody_else() {
    let setup = Setup::with(Tls::Optional, None, Wanted { workers: 1, ..Wanted::default() });
    let mut lazy = setup.enter();
    let data = pattern(3, 1 << 20);
    assert_eq!(lazy.write_at(0, &data), 0);
    let count = 100;
    let reads: Vec<u8> =
        (0..count).flat_map(|cookie| request(cookie, READ, 0, 0, 1 << 20)).collect();
    lazy.write(&reads);
    for _ in 0..4 {
        let mut other = setup.enter();
        for _ in 0..20 {
            assert!(other.read_at(0, 65536) == data[..65536]);
        }
    }
    for _ in 0..count {
        assert_eq!(lazy.reply().1, 0);
        assert!(lazy.read(1 << 20) == data);
    }
    setup.server.stop();
}

#[test]
fn what_is_no_tls_is_disconnected() {
    let setup = Setup::new(Tls::Optional, None);
    let mut bystander = setup.enter();
    // Options in the clear where TLS should begin, sent before and after the acknowledgement.
    for before in [true, false] {
        let mut client = Client::connect(&setup.server.path);
        client.greet();
        let list = option_bytes(OPT_LIST, &[]);
        if before {
            client.write(&[option_bytes(OPT_STARTTLS, &[]), list].concat());
            assert_eq!(client.read(20)[12..16], REP_ACK.to_be_bytes());
        } else {
            client.option(OPT_STARTTLS, &[]);
            client.write(&list);
        }
        // An alert of TLS, and nothing that an option could have been answered with.
        let rest = client.rest();
        assert!(rest.len() < 20 && rest[..2] == [21, 3], "{rest:?}");
    }
    let mut broken = setup.enter();
    broken.stream.sock.write_all(&[23, 3, 3, 0, 32]).unwrap();
    broken.stream.sock.write_all(&[7; 32]).unwrap();
    assert!(broken.stream.read(&mut [0]).is_err());
    let mut endless = setup.enter();
    endless.stream.sock.write_all(&[23, 3, 3, 0xff, 0xff]).unwrap();
    assert!(endless.stream.read(&mut [0]).is_err());
    assert_eq!(bystander.ask(FLUSH, 0, 0, 0), 0);
    setup.server.stop();
}

#[test]
fn half_a_tls_handshake_is_given_up_in_time() {
    let wanted = Wanted { handshake_timeout: Duration::from_millis(300), ..Wanted::default() };
    let setup = Setup::with(Tls::Required, None, wanted);
    let mut client = Client::connect(&setup.server.path);
    client.greet();
    client.option(OPT_STARTTLS, &[]);
    client.write(&[22, 3, 1, 0, 100, 1]);
    let start = Instant::now();
    client.rest();
    assert!(start.elapsed() < Duration::from_secs(10));
    // Once in, a client may rest for as long as it likes.
    let mut idle = setup.enter();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(idle.ask(FLUSH, 0, 0, 0), 0);
    setup.server.stop();
}

/// Which file is wrong, and what is said about it.
fn wrong(files: &IdentityFiles) -> (IdentityFile, String) {
    let error = Identity::load(files).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 2, "{error}");
    (error.file, error.to_string())
}

#[test]
fn wrong_files_are_named() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let files = authority.files(folder.path(), Some(&authority));
    Identity::load(&files).unwrap();
    let path = folder.path().join("wrong.pem");

    let (file, what) = wrong(&IdentityFiles { cert: path.clone(), ..files.clone() });
    assert!(file == IdentityFile::Cert && what.contains("wrong.pem: cannot be read"), "{what}");

    let missing = IdentityFiles { key: files.cert.clone(), ..files.clone() };
    let (file, what) = wrong(&missing);
    assert!(file == IdentityFile::Key && what.contains("no private key"), "{what}");

    fs::write(&path, authority.server().key).unwrap();
    let (file, what) = wrong(&IdentityFiles { key: path.clone(), ..files.clone() });
    assert!(file == IdentityFile::Key && what.contains("not the certificate's key"), "{what}");

    for (text, expected) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n!\n", "")] {
        fs::write(&path, text).unwrap();
        let (file, what) = wrong(&IdentityFiles { cert: path.clone(), ..files.clone() });
        assert!(file == IdentityFile::Cert && what.contains(expected), "{what}");
        let client_ca = Some(path.clone());
        let (file, what) = wrong(&IdentityFiles { client_ca, ..files.clone() });
        assert!(file == IdentityFile::ClientCa && what.contains(expected), "{what}");
    }
}
