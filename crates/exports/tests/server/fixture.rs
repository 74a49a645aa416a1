//! A running server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use blkmq_core::{Priority, TenantConfig};
use blkmq_drivers::{Device, Memory};
use blkmq_exports::nbd::server::{ListenAddress, Listener, Places, ServerConfig, Tls};
use blkmq_exports::nbd::{BlockSizes, Export, Exports, Features};
use blkmq_runtime::{Builder, DiskConfig, Engine, Volume};

use crate::client::Client;
use crate::gate::{Gate, Gated};

pub(crate) const SIZE_BYTES: u64 = 64 << 20;

/// A server of one volume, `gold`, on a unix socket.
pub(crate) struct Server {
    engine: Option<Engine>,
    pub(crate) path: PathBuf,
    pub(crate) config: Arc<ServerConfig>,
    folder: Folder,
}

/// A folder for one test.
pub(crate) struct Folder(PathBuf);

/// What a test wants of its server.
pub(crate) struct Wanted {
    pub(crate) workers: u16,
    pub(crate) size_bytes: u64,
    pub(crate) memory_bytes: usize,
    pub(crate) max_payload_bytes: u32,
    pub(crate) quota_bytes: u64,
    pub(crate) own_bytes: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) stuck_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) tls: Tls,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted {
            workers: 2,
            size_bytes: SIZE_BYTES,
            memory_bytes: 64 << 20,
            max_payload_bytes: 4 << 20,
            quota_bytes: 16 << 20,
            own_bytes: 64 << 10,
            handshake_timeout: Duration::from_secs(10),
            stuck_timeout: Duration::from_secs(10),
            max_connections: 16,
            tls: Tls::Off,
        }
    }
}

impl Server {
    /// On memory, with what is customary.
    pub(crate) fn start() -> Self {
        Server::with(Memory::new(SIZE_BYTES), &Wanted::default())
    }

    /// On a device that waits for a gate.
    pub(crate) fn gated() -> (Self, Gate) {
        let gate = Gate::default();
        (Server::with(Gated::new(SIZE_BYTES, gate.clone()), &Wanted::default()), gate)
    }

    pub(crate) fn with(device: impl Device, wanted: &Wanted) -> Self {
        let mut builder = Builder::new(wanted.workers, wanted.memory_bytes);
        builder.promise(wanted.max_connections, wanted.own_bytes);
        let disk = DiskConfig {
            nr_requests: 256,
            queue_depth: None,
            hw_queues: wanted.workers,
            scheduler: None,
            groups: Vec::new(),
            timeout: None,
        };
        let disk = builder.disk(device, disk);
        let volume = builder.volume(Volume {
            name: "gold".to_owned(),
            disk,
            offset_bytes: 0,
            size_bytes: wanted.size_bytes,
            tenant: TenantConfig::default(),
            prio: Priority::default(),
            read_only: false,
        });
        let gold = export("gold", wanted.size_bytes, wanted.max_payload_bytes);
        let exports = Exports::new(vec![gold], Some("gold")).unwrap();
        let places = Places::new(wanted.max_connections);
        let config = Arc::new(ServerConfig {
            handshake_timeout: wanted.handshake_timeout,
            stuck_timeout: wanted.stuck_timeout,
            quota_bytes: wanted.quota_bytes,
            tls: wanted.tls.clone(),
            own_bytes: wanted.own_bytes,
            ..ServerConfig::new(Arc::new(exports), vec![volume], places)
        });
        let folder = Folder::new();
        let path = folder.path().join("nbd.sock");
        let mut server =
            Server { engine: Some(builder.start().unwrap()), path: path.clone(), config, folder };
        server.listen(&ListenAddress::Unix(path));
        server
    }

    /// Listens at one more address.
    pub(crate) fn listen(&mut self, address: &ListenAddress) -> ListenAddress {
        let listener = Listener::bind(address, Arc::clone(&self.config)).unwrap();
        let at = listener.address().clone();
        self.engine.as_ref().unwrap().adopt(Box::new(listener));
        at
    }

    /// Gives the volume another size.
    pub(crate) fn resize(&self, size_bytes: u64) {
        let volume = self.config.volumes[0];
        self.engine.as_ref().unwrap().sizes().set(volume, size_bytes);
        self.config.exports.resize(0, size_bytes).unwrap();
    }

    /// A new client of `gold`.
    pub(crate) fn client(&self) -> Client {
        Client::enter(&self.path, "gold")
    }

    /// Stops it, and sees to it that nobody is left.
    pub(crate) fn stop(mut self) {
        self.engine.take().unwrap().stop(Duration::from_secs(20)).unwrap();
        assert_eq!(self.config.places.taken(), 0);
        assert!(!self.path.exists(), "the socket is removed");
        drop(self.folder);
    }
}

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("blkmq-exports-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An export that offers all there is.
pub(crate) fn export(name: &str, size_bytes: u64, max_payload_bytes: u32) -> Export {
    Export {
        name: name.to_owned(),
        description: String::new(),
        size_bytes,
        features: Features {
            read_only: false,
            flush: true,
            fua: true,
            trim: true,
            write_zeroes: true,
            multi_conn: true,
            rotational: false,
            block_status: true,
        },
        block: BlockSizes { min_bytes: 512, preferred_bytes: 4096, max_payload_bytes },
    }
}
