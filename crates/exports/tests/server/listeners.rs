//! Listening sockets.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use blkmq_drivers::Memory;
use blkmq_exports::UnixSocketError;
use blkmq_exports::nbd::Exports;
use blkmq_exports::nbd::server::{BindError, ListenAddress, Listener, Places, ServerConfig};

use crate::client::Client;
use crate::fixture::{Folder, SIZE_BYTES, Server, Wanted};
use crate::gate::await_that;

fn config() -> Arc<ServerConfig> {
    let exports = Arc::new(Exports::new(Vec::new(), None).unwrap());
    Arc::new(ServerConfig::new(exports, Vec::new(), Places::new(1)))
}

fn bind(address: &ListenAddress) -> Result<Listener, BindError> {
    Listener::bind(address, config())
}

#[test]
fn a_socket_is_its_owners_alone_and_goes_with_the_server() {
    let folder = Folder::new();
    let path = folder.path().join("nbd.sock");
    let listener = bind(&ListenAddress::Unix(path.clone())).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let uri = format!("nbd+unix:///gold?socket={}", path.display());
    assert_eq!(listener.uri("gold"), uri);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    let folder = Folder::new();
    let path = folder.path().join("nbd.sock");
    let address = ListenAddress::Unix(path.clone());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "it is stale");
    let listener = bind(&address).unwrap();
    let error = bind(&address).unwrap_err();
    assert!(matches!(error, BindError::Unix(UnixSocketError::Live(_))), "{error}");
    assert_eq!(error.to_string().lines().count(), 2);
    UnixStream::connect(&path).expect("the one that lives was left alone");
    drop(listener);
    bind(&address).expect("its place is free");
}

#[test]
fn a_socket_that_was_replaced_is_left_alone() {
    let folder = Folder::new();
    let path = folder.path().join("nbd.sock");
    let listener = bind(&ListenAddress::Unix(path.clone())).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn what_is_no_place_to_listen_is_told_with_its_mend() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let error = bind(&ListenAddress::Unix(file.clone())).unwrap_err();
    assert!(matches!(error, BindError::Unix(UnixSocketError::NotASocket(_))), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let error = bind(&ListenAddress::Unix(folder.path().join("a/b"))).unwrap_err();
    assert!(error.to_string().ends_with("create the folder first"), "{error}");
    let error = bind(&ListenAddress::Unix(folder.path().join("x".repeat(120)))).unwrap_err();
    assert!(matches!(error, BindError::Unix(UnixSocketError::PathTooLong(_))), "{error}");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let first = bind(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let error = bind(first.address()).unwrap_err();
    assert!(error.to_string().ends_with("or choose another port"), "{error}");
    assert!(first.uri("gold").starts_with("nbd://127.0.0.1:"), "{}", first.uri("gold"));
    assert!(!first.uri("gold").contains(":0/"), "the port that was free is told");
}

#[test]
fn who_comes_when_all_places_are_taken_is_turned_away() {
    let wanted = Wanted { max_connections: 2, ..Wanted::default() };
    let mut server = Server::with(Memory::new(SIZE_BYTES), &wanted);
    let tcp = server.listen(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    let ListenAddress::Tcp(at) = tcp else { panic!("it listens at {tcp}") };
    let first = server.client();
    let mut second = Client::enter_tcp(at.port(), "gold");
    assert!(Client::connect(&server.path).is_closed());
    drop(first);
    await_that(|| server.config.places.taken() == 1);
    let mut third = server.client();
    assert_eq!(third.read_at(0, 512), second.read_at(0, 512));
    drop((second, third));
    server.stop();
}
