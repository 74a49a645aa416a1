//! The end of an engine, with I/O in flight and from wherever it comes.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use blkmq::{Buffer, DiskOptions, Engine, Error, StopError, Volume, VolumeOptions};
use futures::FutureExt;
use tempfile::TempDir;

use crate::common::{BLOCK_BYTES, LIMIT, On, builder, engine, folder, within_limit};

fn block(volume: &Volume, block: u64) -> Vec<u8> {
    let (result, bytes) = volume.read(block * BLOCK_BYTES as u64, vec![0; BLOCK_BYTES]).wait();
    result.unwrap();
    bytes
}

/// Opens the disk of `folder` again, and says which of its first blocks were written.
fn written(folder: &TempDir, size_bytes: u64, blocks: u64) -> Vec<bool> {
    let engine = engine(On::File, folder, size_bytes, 1);
    let volume = engine.volume("v").unwrap();
    (0..blocks).map(|i| block(&volume, i).iter().all(|byte| *byte == 0xA5)).collect()
}

#[test]
fn what_is_in_flight_is_finished_and_what_waits_or_comes_later_is_refused() {
    within_limit(|| {
        const BLOCKS: u64 = 400;
        let folder = folder();
        let size_bytes = BLOCKS * BLOCK_BYTES as u64;
        let options = (DiskOptions::new(), VolumeOptions::new().in_flight_max(100));
        let engine = builder(On::File, &folder, size_bytes, 2, options).start().unwrap();
        let volume = engine.volume("v").unwrap();
        let write = |i: u64| {
            let buffer = Buffer::from([0xA5; BLOCK_BYTES].as_slice());
            volume.write(i * BLOCK_BYTES as u64, buffer).submit()
        };
        let writes: Vec<_> = (0..BLOCKS).map(write).collect();
        engine.shutdown(LIMIT).unwrap();
        let ended = writes.into_iter().map(|io| match io.wait().0 {
            Ok(()) => true,
            Err(Error::Closed) => false,
            Err(other) => panic!("{other}"),
        });
        let ended: Vec<bool> = ended.collect();
        let done = ended.iter().filter(|done| **done).count();
        assert!(done >= 100, "a hundred were with the layer, and {done} were done");
        println!("{done} of {BLOCKS} were done");
        assert!(matches!(volume.flush().wait(), Err(Error::Closed)));
        assert!(matches!(futures::executor::block_on(write(0)).0, Err(Error::Closed)));
        let (result, buffer) = volume.read(0, vec![7; 512]).wait();
        assert!(matches!(result, Err(Error::Closed)));
        assert_eq!(buffer, [7; 512], "the memory comes back as it was");
        assert_eq!(written(&folder, size_bytes, BLOCKS), ended, "done is done, refused is not");
    });
}

#[test]
fn everybody_is_answered_when_the_engine_ends_under_load() {
    for on in [On::Memory, On::File] {
        within_limit(move || {
            for _ in 0..20 {
                let folder = folder();
                let engine = engine(on, &folder, 1 << 20, 2);
                let volume = engine.volume("v").unwrap();
                let writes = Arc::new(AtomicUsize::new(0));
                let load = || {
                    let (volume, writes) = (volume.clone(), Arc::clone(&writes));
                    std::thread::spawn(move || {
                        loop {
                            let request = volume.write(0, vec![1; BLOCK_BYTES]);
                            match request.wait().0 {
                                Ok(()) => writes.fetch_add(1, Ordering::SeqCst),
                                Err(Error::Closed) => return,
                                Err(other) => panic!("{other}"),
                            };
                        }
                    })
                };
                let threads: Vec<_> = (0..6).map(|_| load()).collect();
                while writes.load(Ordering::SeqCst) < 100 {
                    std::thread::yield_now();
                }
                engine.shutdown(LIMIT).unwrap();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            }
        });
    }
}

#[test]
fn a_dropped_engine_finishes_too() {
    within_limit(|| {
        let folder = folder();
        let engine = engine(On::File, &folder, 1 << 20, 2);
        let volume = engine.volume("v").unwrap();
        let writes: Vec<_> =
            (0..64).map(|i| volume.write(i * 4096, vec![0xA5; BLOCK_BYTES]).submit()).collect();
        drop(engine);
        writes.into_iter().for_each(|io| io.wait().0.unwrap());
        assert_eq!(written(&folder, 1 << 20, 64), [true; 64]);
    });
}

#[test]
fn an_end_that_takes_too_long_says_so_and_what_is_in_flight_ends_all_the_same() {
    within_limit(|| {
        // Eight megabytes take a while, but this thread may be held up for longer.
        let try_once = |_| {
            let folder = folder();
            let engine = engine(On::File, &folder, 8 << 20, 1);
            let volume = engine.volume("v").unwrap();
            let io = volume.write(0, vec![0xA5; 8 << 20]).submit();
            Some((engine.shutdown(Duration::ZERO).err()?, volume, io, folder))
        };
        let (error, volume, io, _folder) = (0..20).find_map(try_once).expect("it is cut short");
        assert!(matches!(error, Error::Stop(StopError::Timeout(_))), "{error}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
        assert!(matches!(volume.flush().wait(), Err(Error::Closed)));
        io.wait().0.unwrap();
    });
}

#[test]
fn engines_volumes_and_futures_can_be_shared_and_sent() {
    fn can<T: Send + Sync>() {}
    fn can_be_sent<T: Send>() {}
    can::<Engine>();
    can::<Volume>();
    can::<Error>();
    can_be_sent::<blkmq::Io<blkmq::kind::Read<Buffer>>>();
}

/// A waker that ends the engine, on the engine's own thread.
struct EndsIt(Mutex<Option<Engine>>, Sender<Option<String>>);

impl Wake for EndsIt {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
        self.1.send(std::thread::current().name().map(str::to_owned)).unwrap();
    }
}

#[test]
fn an_engine_that_is_dropped_by_its_own_thread_ends() {
    within_limit(|| {
        let folder = folder();
        let engine = engine(On::File, &folder, 8 << 20, 1);
        let volume = engine.volume("v").unwrap();
        let mut io = volume.write(0, vec![0xA5; 8 << 20]).into_future();
        let (woken, wakes) = channel();
        let waker = Waker::from(Arc::new(EndsIt(Mutex::new(Some(engine)), woken)));
        let polled = io.poll_unpin(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "eight megabytes take a while");
        let thread = wakes.recv().unwrap();
        assert_eq!(thread.as_deref(), Some("blkmq-0"), "the engine's own thread");
        io.wait().0.unwrap();
        // The lock on the file goes with the disk.
        let start = Instant::now();
        loop {
            let size_bytes = Some(8 << 20);
            let path = folder.path().join("disk");
            let file = blkmq::FileOptions { size_bytes, ..blkmq::FileOptions::new(path) };
            match blkmq::Builder::new().file_disk(&file, DiskOptions::new()) {
                Ok(_) => return,
                Err(error) => assert!(start.elapsed() < LIMIT / 2, "still open: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn threads_that_block_and_outnumber_what_may_be_in_flight_all_get_their_turn() {
    within_limit(|| {
        for on in [On::Memory, On::File] {
            let folder = folder();
            let options = (DiskOptions::new().nr_requests(2), VolumeOptions::new());
            let engine = builder(on, &folder, 1 << 20, 2, options).start().unwrap();
            let volume = engine.volume("v").unwrap();
            std::thread::scope(|scope| {
                for i in 0..32u64 {
                    let volume = volume.clone();
                    scope.spawn(move || {
                        for step in 0..20 {
                            let bytes = vec![step + i as u8; BLOCK_BYTES];
                            let (result, bytes) = volume.write(i * 4096, bytes).wait();
                            result.unwrap();
                            assert_eq!(block(&volume, i), bytes);
                        }
                    });
                }
            });
            engine.shutdown(LIMIT).unwrap();
        }
    });
}
