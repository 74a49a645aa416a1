//! A server of two volumes of one disk: one is modelled, to the other anybody may send anything.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blkmq_core::{Deadline, DeadlineConfig, Held, Priority, TenantConfig};
use blkmq_drivers::Memory;
use blkmq_exports::nbd::Exports;
use blkmq_exports::nbd::server::{ListenAddress, Listener, Places, ServerConfig};
use blkmq_runtime::{Builder, DiskConfig, Engine, Volume};

use super::model::Model;
use super::tame::{SLOTS, Tame};
use super::{Step, Wanted};
use crate::client::{Client, WRITE_ZEROES};
use crate::fixture::{Folder, export};

pub(super) const VOLUME_BYTES: u64 = 128 << 10;
pub(super) const PAYLOAD_MAX_BYTES: u32 = 64 << 10;
/// Parts of blocks have to be locked, read, changed and written.
const BLOCK_BYTES: u32 = 4096;
const WORKERS: u16 = 2;
const MEMORY_BYTES: usize = 4 << 20;
/// Less than a client has on its way at times: it is held up, and goes on when there is room.
const QUOTA_BYTES: u64 = 24 << 10;
/// More than can come in a script: the server may not have noticed yet that a client has gone.
const PLACES: usize = 100;
const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Served {
    engine: Engine,
    /// Watches over the modelled volume, and is there all the time.
    watch: Client,
    places: Places,
    tame_path: PathBuf,
    wild_path: PathBuf,
    _folder: Folder,
}

impl Served {
    pub(super) fn start() -> Self {
        let mut builder = Builder::new(WORKERS, MEMORY_BYTES);
        let disk = DiskConfig {
            nr_requests: 16,
            queue_depth: Some(3),
            hw_queues: WORKERS,
            scheduler: Some(Box::new(Deadline::new(DeadlineConfig::default(), 16))),
            groups: Vec::new(),
            timeout: None,
        };
        let disk = builder.disk(Memory::with_block(2 * VOLUME_BYTES, BLOCK_BYTES), disk);
        let names = ["gold", "wild"];
        let volumes = names.map(|name| {
            builder.volume(Volume {
                name: name.to_owned(),
                disk,
                offset_bytes: if name == "gold" { 0 } else { VOLUME_BYTES },
                size_bytes: VOLUME_BYTES,
                tenant: TenantConfig::default(),
                prio: Priority::default(),
                read_only: false,
            })
        });
        let engine = builder.start().unwrap();
        let (folder, places) = (Folder::new(), Places::new(PLACES));
        let paths = names.map(|name| folder.path().join(name));
        for ((name, path), volume) in names.iter().zip(&paths).zip(volumes) {
            let one = vec![export(name, VOLUME_BYTES, PAYLOAD_MAX_BYTES)];
            let exports = Arc::new(Exports::new(one, Some(name)).unwrap());
            let config = ServerConfig {
                quota_bytes: QUOTA_BYTES,
                ..ServerConfig::new(exports, vec![volume], places.clone())
            };
            let address = ListenAddress::Unix(path.clone());
            engine.adopt(Box::new(Listener::bind(&address, Arc::new(config)).unwrap()));
        }
        let [tame_path, wild_path] = paths;
        let watch = Client::enter(&tame_path, "gold");
        Served { engine, watch, places, tame_path, wild_path, _folder: folder }
    }

    /// Has the clients do what the script says, and looks what is left of it.
    pub(super) fn play(&mut self, script: &[Step]) {
        assert_eq!(self.watch.ask(WRITE_ZEROES, 0, 0, VOLUME_BYTES as u32), 0);
        let mut model = Model::new(VOLUME_BYTES);
        let mut tame: [Option<Tame>; SLOTS] = std::array::from_fn(|_| None);
        let mut wild = None;
        for step in script {
            match step {
                Step::Enter { slot, structured } => {
                    if tame[*slot].is_none() {
                        tame[*slot] = Some(Tame::enter(&self.tame_path, *structured));
                    }
                }
                Step::Ask { slot, request, pieces } => {
                    hear_rivals(&mut tame, &mut model, *slot, request);
                    if let Some(client) = &mut tame[*slot] {
                        client.ask(&mut model, request, *pieces);
                    }
                }
                Step::Hear { slot } => {
                    if let Some(client) = &mut tame[*slot] {
                        client.hear_all(&mut model);
                    }
                }
                Step::End { slot, how } => {
                    if let Some(client) = tame[*slot].take() {
                        client.end(&mut model, *how);
                    }
                }
                Step::Shout { bytes } => shout(&self.wild_path, &mut wild, bytes),
                Step::Silence => wild = None,
            }
        }
        tame.iter_mut().flatten().for_each(|client| client.hear_all(&mut model));
        drop((tame, wild));
        self.look(&model);
    }

    /// When all have gone, nothing is in flight, and the volume holds what it may hold.
    fn look(&mut self, model: &Model) {
        let end = Instant::now() + LIMIT;
        while self.places.taken() > 1 {
            assert!(Instant::now() < end, "clients have gone, and still have places");
            std::thread::yield_now();
        }
        let piece = PAYLOAD_MAX_BYTES;
        for offset in (0..VOLUME_BYTES).step_by(piece as usize) {
            let data = self.watch.read_at(offset, piece);
            model.check(offset as usize / 512, &data);
        }
        // What is answered has given back what it held.
        let held = self.engine.controls()[0].held();
        assert_eq!(held, Held { requests: 0, in_flight: 0, budget: 0, dispatch: 0 });
    }

    pub(super) fn stop(self) {
        drop(self.watch);
        self.engine.stop(LIMIT).unwrap();
        assert_eq!(self.places.taken(), 0);
        assert!(!self.tame_path.exists() && !self.wild_path.exists(), "the sockets are removed");
    }
}

/// Requests that overlap are not sent at once: what came of them could not be told.
fn hear_rivals(tame: &mut [Option<Tame>], model: &mut Model, slot: usize, wanted: &Wanted) {
    if tame[slot].is_none() {
        return;
    }
    let rivals = tame.iter_mut().flatten().filter(|client| client.overlaps(wanted));
    rivals.for_each(|client| client.hear_all(model));
}

/// Sends whatever. What the server answers is not read, and it may have closed.
fn shout(path: &std::path::Path, wild: &mut Option<UnixStream>, bytes: &[u8]) {
    let stream = wild.get_or_insert_with(|| {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    });
    match stream.write_all(bytes) {
        Ok(()) => {}
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::WouldBlock
            ),
            "{error}"
        ),
    }
}
