//! What tests of a service have in common: an engine of one worker, and a socket to the service.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use blkmq_core::{Priority, TenantConfig};
use blkmq_drivers::Device;
use blkmq_runtime::{Builder, DiskConfig, Engine, Service, Volume, VolumeId};

/// Far more than anything here takes, so that a hang is a failure and not a hang of the tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const SIZE_BYTES: u64 = 1 << 20;

/// An engine with a megabyte of memory, and on it a volume that is the whole device.
pub(crate) fn engine(device: impl Device, timeout: Option<Duration>) -> (Engine, VolumeId) {
    let mut builder = Builder::new(1, 1 << 20);
    let config = DiskConfig {
        nr_requests: 8,
        queue_depth: None,
        hw_queues: 1,
        scheduler: None,
        groups: Vec::new(),
        timeout,
    };
    let disk = builder.disk(device, config);
    let volume = builder.volume(Volume {
        name: "v".to_owned(),
        disk,
        offset_bytes: 0,
        size_bytes: SIZE_BYTES,
        tenant: TenantConfig::default(),
        prio: Priority::default(),
        read_only: false,
    });
    (builder.start().expect("an engine starts"), volume)
}

/// Hands the engine a service with one end of a pair of sockets. The other end.
pub(crate) fn adopt<S: Service + 'static>(
    engine: &mut Engine,
    service: impl FnOnce(UnixStream) -> S,
) -> UnixStream {
    let (client, socket) = UnixStream::pair().expect("a pair of sockets");
    client.set_read_timeout(Some(LIMIT)).expect("a socket takes a time limit");
    socket.set_nonblocking(true).expect("a socket can be told not to block");
    engine.adopt(Box::new(service(socket)));
    client
}
