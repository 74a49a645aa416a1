//! Rings: their threads, their wake-ups, and their end.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use blkmq_core::{Bio, CtxId, Flags, Op, Status};
use blkmq_drivers::Device;

use crate::folder::Folder;
use crate::in_file::create;
use crate::pages::Pages;
use crate::rig::{Rig, bio, flush};

const DEPTH: u32 = 64;

fn rig(folder: &Folder) -> Rig<blkmq_drivers::File> {
    Rig::new(create(&folder.path().join("disk.img"), 64 << 20, true), DEPTH)
}

/// As many writes as fit at once, each of 64 KiB in four pieces, and none merged with another.
fn writes(memory: &Pages) -> impl Iterator<Item = Bio> {
    (0..u64::from(DEPTH)).map(|i| {
        let pieces: Vec<_> = (0..4).map(|j| memory.segment(j * 16_384, 16_384, None)).collect();
        bio(Op::Write, Flags::NOMERGE, i * 128, 128, &pieces)
    })
}

#[test]
fn the_descriptor_is_readable_when_completions_wait_and_only_then() {
    let folder = Folder::on_disk();
    let mut rig = rig(&folder);
    assert!(!rig.becomes_readable(Duration::from_millis(20)));
    let memory = Pages::new(65_536);
    for _ in 0..20 {
        rig.submit(writes(&memory));
        assert!(rig.becomes_readable(Duration::from_secs(10)), "nobody is woken");
        // It stays so until somebody reaps.
        assert!(rig.becomes_readable(Duration::ZERO));
        assert!(rig.device().has_finished(rig.cpu.as_ref().unwrap().ring()));
        assert!(rig.wait().iter().all(|done| done.status.is_ok()));
        assert!(!rig.device().has_finished(rig.cpu.as_ref().unwrap().ring()));
        assert!(!rig.becomes_readable(Duration::ZERO));
    }
}

#[test]
fn a_ring_may_be_made_on_another_thread_than_the_one_that_uses_it() {
    let folder = Folder::on_disk();
    let mut rig = rig(&folder);
    let done = thread::spawn(move || {
        let memory = Pages::new(65_536);
        rig.submit(writes(&memory));
        let done = rig.wait();
        (done, rig)
    });
    let (done, rig) = done.join().unwrap();
    assert_eq!(done.len(), DEPTH as usize);
    assert!(done.iter().all(|done| done.status.is_ok()));
    drop(rig);
}

#[test]
fn a_ring_may_change_hands() {
    let folder = Folder::on_disk();
    let mut rig = rig(&folder);
    let memory = Pages::new(65_536);
    for _ in 0..4 {
        let bios: Vec<Bio> = writes(&memory).collect();
        rig.submit(bios.clone());
        // One thread submits, another one waits, while the first lives and after it has ended.
        rig = thread::spawn(move || {
            assert!(rig.wait().iter().all(|done| done.status.is_ok()));
            rig.submit(bios);
            rig
        })
        .join()
        .unwrap();
        let statuses = rig.wait();
        assert!(statuses.iter().all(|done| done.status.is_ok()), "{statuses:?}");
    }
}

/// Whatever has become of the io_uring, requests end.
#[test]
fn a_ring_that_is_lost_ends_its_requests_in_errors() {
    let folder = Folder::on_disk();
    let mut rig = rig(&folder);
    assert_eq!(rig.run(flush()), Status::Ok);
    let fd = rig.device().poll_fd(rig.cpu.as_ref().unwrap().ring()).unwrap().as_raw_fd();
    // SAFETY: the number stays open, as something else, and is not closed here.
    let mut fd = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
    rustix::io::dup2(File::open("/dev/null").unwrap(), &mut fd).unwrap();
    let memory = Pages::new(65_536);
    rig.submit(writes(&memory));
    assert!(rig.wait().iter().all(|done| done.status == Status::IoErr));
    assert_eq!(rig.run(flush()), Status::IoErr);
}

/// The requests of a ring that was dropped come back as errors, to whoever takes the next turn.
fn ends_in_errors(rig: &mut Rig<blkmq_drivers::File>) {
    assert_eq!(rig.queue.defects(), DEPTH as usize);
    let ring = rig.device().ring(DEPTH).unwrap();
    rig.cpu = Some(rig.queue.cpu(CtxId(0), ring));
    assert!(rig.wait().iter().all(|done| done.status == Status::IoErr));
}

#[test]
fn a_ring_that_is_dropped_waits_for_what_is_in_flight() {
    let folder = Folder::on_disk();
    let mut rig = rig(&folder);
    let mut memory = Pages::new(65_536);
    memory.bytes().fill(9);
    rig.submit(writes(&memory));
    assert_eq!(rig.queue.held().in_flight, DEPTH);
    drop(rig.cpu.take());
    // The kernel is done with the memory: all of it is in the file as it was then.
    memory.bytes().fill(1);
    let contents = std::fs::read(rig.device().path()).unwrap();
    assert!(contents[..4 << 20].iter().all(|byte| *byte == 9));
    ends_in_errors(&mut rig);
}

#[test]
fn a_ring_may_be_dropped_after_its_thread_has_ended_with_requests_in_flight() {
    let folder = Folder::on_disk();
    let mut rig = rig(&folder);
    let memory = Pages::new(65_536);
    let bios: Vec<Bio> = writes(&memory).collect();
    let mut rig = thread::spawn(move || {
        rig.submit(bios);
        rig
    })
    .join()
    .unwrap();
    drop(rig.cpu.take());
    ends_in_errors(&mut rig);
}

#[test]
fn registered_memory_is_checked_against_its_area() {
    let folder = Folder::on_disk();
    let mut rig = rig(&folder);
    let (mut known, mut unknown) = (Pages::new(8192), Pages::new(8192));
    let areas = [known.area()];
    rig.queue.driver().register_buffers(rig.cpu.as_mut().unwrap().ring_mut(), &areas);
    known.bytes().fill(1);
    unknown.bytes().fill(2);
    // The second names an area that it does not lie in, the third one that there is not.
    let segments = [
        known.segment(0, 4096, Some(0)),
        unknown.segment(0, 4096, Some(0)),
        unknown.segment(4096, 4096, Some(7)),
    ];
    for (i, segment) in segments.into_iter().enumerate() {
        let write = bio(Op::Write, Flags::empty(), i as u64 * 8, 8, &[segment]);
        assert_eq!(rig.run(write), Status::Ok);
    }
    let read = bio(Op::Read, Flags::empty(), 8, 16, &[known.segment(0, 8192, Some(0))]);
    assert_eq!(rig.run(read), Status::Ok);
    assert!(known.bytes().iter().all(|byte| *byte == 2));
}

#[test]
fn a_depth_that_no_ring_can_have_is_refused() {
    let folder = Folder::on_disk();
    let file = create(&folder.path().join("disk.img"), 1 << 20, true);
    for depth in [0, 1 << 20] {
        let error = file.ring(depth).unwrap_err();
        assert!(error.to_string().contains("32768"), "{error}");
    }
}
