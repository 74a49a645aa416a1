//! A client that waits for memory costs nothing while none comes back, and is told when some does.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blkmq_runtime::{Buffer, Builder, Cx, Interest, IoDone, Service};

const LIMIT: Duration = Duration::from_secs(10);

/// Takes all the memory there is with the first byte it reads, and lets go of it with the second.
struct Glutton {
    socket: UnixStream,
    held: Vec<Buffer>,
    retries: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
    is_stopped: bool,
}

impl Service for Glutton {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn interest(&self) -> Interest {
        Interest { readable: true, ..Interest::default() }
    }

    fn ready(&mut self, cx: &mut Cx<'_>, _ready: Interest) {
        let mut byte = [0];
        if std::io::Read::read(&mut self.socket, &mut byte).is_ok_and(|read| read == 1) {
            match byte[0] {
                b'+' => {
                    while let Some(buffer) = cx.buffer(64 << 10) {
                        self.held.push(buffer);
                    }
                    self.served.fetch_add(1, Ordering::SeqCst);
                }
                _ => self.held.clear(),
            }
        }
    }

    fn done(&mut self, _cx: &mut Cx<'_>, _done: IoDone) {
        unreachable!("it submits nothing");
    }

    fn flush(&mut self, _cx: &mut Cx<'_>) {}

    fn retry(&mut self, _cx: &mut Cx<'_>) {
        self.retries.fetch_add(1, Ordering::SeqCst);
    }

    fn deadline(&mut self, _cx: &mut Cx<'_>) {}

    fn stop(&mut self, _cx: &mut Cx<'_>) {
        self.is_stopped = true;
    }

    fn is_finished(&self) -> bool {
        self.is_stopped
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what} did not come in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_waits_for_memory_is_asked_again_when_some_came_back_and_not_before() {
    let engine = Builder::new(1, 1 << 20).start().expect("an engine without disks starts");
    let (mut client, socket) = UnixStream::pair().expect("a pair of sockets");
    socket.set_nonblocking(true).expect("a socket can be told not to block");
    let (retries, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    engine.adopt(Box::new(Glutton {
        socket,
        held: Vec::new(),
        retries: Arc::clone(&retries),
        served: Arc::clone(&served),
        is_stopped: false,
    }));
    client.write_all(b"+").expect("a byte can be sent");
    wait_until("the service", || served.load(Ordering::SeqCst) == 1);
    // As long as nothing comes back, rounds must not follow each other; they did, by the thousand.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(retries.load(Ordering::SeqCst), 0, "nothing came back");
    client.write_all(b"-").expect("a byte can be sent");
    wait_until("the retry", || retries.load(Ordering::SeqCst) == 1);
    engine.stop(LIMIT).expect("the engine stops");
}
