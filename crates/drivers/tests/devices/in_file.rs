//! What a file device does with requests.

use std::fs;
use std::path::Path;
use std::process::Command;

use blkmq_core::{Driver, Flags, Op, Status};
use blkmq_drivers::{Device, Extent, ExtentKind, File, FileOptions};

use crate::folder::Folder;
use crate::model::{DEPTH, Model, SIZE_BYTES};
use crate::pages::Pages;
use crate::rig::{Rig, bio, flush};

pub(crate) fn create(path: &Path, size_bytes: u64, direct: bool) -> File {
    let size_bytes = Some(size_bytes);
    File::open(&FileOptions { size_bytes, direct, ..FileOptions::new(path) }).unwrap()
}

fn against_the_model(folder: &Folder, direct: bool, register: bool, seed: u64) {
    let file = create(&folder.path().join("disk.img"), SIZE_BYTES, direct);
    let mut rig = Rig::new(file, DEPTH);
    Model::new(&mut rig, seed, register).run(24);
    assert_eq!(rig.queue.defects(), 0);
}

#[test]
fn a_direct_file_holds_what_was_written() {
    against_the_model(&Folder::on_disk(), true, false, 1);
}

#[test]
fn a_direct_file_holds_what_was_written_from_registered_memory() {
    against_the_model(&Folder::on_disk(), true, true, 2);
}

#[test]
fn a_buffered_file_holds_what_was_written() {
    against_the_model(&Folder::on_disk(), false, true, 3);
}

#[test]
fn a_file_in_memory_holds_what_was_written() {
    against_the_model(&Folder::in_memory(), true, true, 4);
}

#[test]
fn what_was_written_is_in_the_file_for_others_to_read() {
    let folder = Folder::on_disk();
    let path = folder.path().join("disk.img");
    let mut rig = Rig::new(create(&path, 1 << 20, true), 4);
    let mut memory = Pages::new(8192);
    memory.bytes().fill(0xA5);
    let write = bio(Op::Write, Flags::FUA, 16, 16, &[memory.segment(0, 8192, None)]);
    assert_eq!(rig.run(write), Status::Ok);
    drop(rig);
    let contents = fs::read(&path).unwrap();
    assert_eq!(contents.len(), 1 << 20);
    assert!(contents[8192..16_384].iter().all(|byte| *byte == 0xA5));
    assert!(contents[..8192].iter().chain(&contents[16_384..]).all(|byte| *byte == 0));
}

fn holes_come_and_go(folder: &Folder) {
    let mib = 1 << 20;
    let mut rig = Rig::new(create(&folder.path().join("disk.img"), 4 * mib, true), 4);
    let hole = |len_bytes| Extent { len_bytes, kind: ExtentKind::Hole };
    let data = |len_bytes| Extent { len_bytes, kind: ExtentKind::Data };
    let whole = |rig: &Rig<File>| rig.device().extents(0, 4 * mib, 9).unwrap();
    assert_eq!(whole(&rig), [hole(4 * mib)]);
    let mut memory = Pages::new(1 << 20);
    memory.bytes().fill(0x5A);
    let segment = [memory.segment(0, 1 << 20, None)];
    rig.submit([2048, 4096].map(|at| bio(Op::Write, Flags::empty(), at, 2048, &segment)));
    assert!(rig.wait().iter().all(|done| done.status.is_ok()));
    assert_eq!(whole(&rig), [hole(mib), data(2 * mib), hole(mib)]);
    let some = rig.device().extents(mib / 2, 3 * mib, 2).unwrap();
    assert_eq!(some, [hole(mib / 2), data(2 * mib)]);

    assert_eq!(rig.run(bio(Op::Discard, Flags::empty(), 2048, 2048, &[])), Status::Ok);
    assert_eq!(whole(&rig), [hole(2 * mib), data(mib), hole(mib)]);
    assert_eq!(rig.run(bio(Op::WriteZeroes, Flags::FUA, 4096, 1024, &[])), Status::Ok);
    assert_eq!(whole(&rig), [hole(2 * mib + mib / 2), data(mib / 2), hole(mib)]);
    assert_eq!(rig.run(bio(Op::Read, Flags::empty(), 4096, 2048, &segment)), Status::Ok);
    let (zeroes, rest) = memory.bytes().split_at(1 << 19);
    assert!(zeroes.iter().all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0x5A));
}

#[test]
fn holes_come_and_go_on_disk() {
    holes_come_and_go(&Folder::on_disk());
}

#[test]
fn holes_come_and_go_in_memory() {
    holes_come_and_go(&Folder::in_memory());
}

/// The blocks of 512 bytes that a file takes.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().blocks()
}

/// On disk the range is zeroed by the file system. A file system in memory cannot, so that zeroes
/// have to be written, in several goes where there are many.
#[test]
fn zeroes_that_must_not_unmap_leave_the_range_allocated() {
    for folder in [Folder::on_disk(), Folder::in_memory()] {
        let path = folder.path().join("disk.img");
        let mut rig = Rig::new(create(&path, 32 << 20, true), 4);
        let sectors = (20 << 20) / 512;
        for flags in [Flags::NOUNMAP, Flags::NOUNMAP | Flags::FUA] {
            let zeroes = bio(Op::WriteZeroes, flags, 2048, sectors, &[]);
            assert_eq!(rig.run(zeroes), Status::Ok);
            assert!(allocated(&path) >= u64::from(sectors));
        }
        assert_eq!(rig.run(bio(Op::WriteZeroes, Flags::empty(), 0, 65_536, &[])), Status::Ok);
        assert_eq!(allocated(&path), 0);
    }
}

/// What reads as zeroes and takes space is no hole: a write there cannot fail for want of space.
#[test]
fn what_is_allocated_and_empty_is_told_from_a_hole() {
    let mib = 1 << 20;
    let folder = Folder::on_disk();
    let mut rig = Rig::new(create(&folder.path().join("disk.img"), 512 * mib, true), 4);
    let extent = |mib: u64, kind| Extent { len_bytes: mib << 20, kind };
    let (hole, zero, data) = (ExtentKind::Hole, ExtentKind::Zero, ExtentKind::Data);
    // Longer than a file system's longest extent, so that it is told of several.
    let zeroes = bio(Op::WriteZeroes, Flags::NOUNMAP, 2048, 400 << 11, &[]);
    assert_eq!(rig.run(zeroes), Status::Ok);
    let memory = Pages::new(1 << 20);
    let write = bio(Op::Write, Flags::empty(), 8192, 2048, &[memory.segment(0, 1 << 20, None)]);
    assert_eq!(rig.run(write), Status::Ok);
    let whole =
        [extent(1, hole), extent(3, zero), extent(1, data), extent(396, zero), extent(111, hole)];
    let device = rig.device();
    assert_eq!(device.extents(0, 512 * mib, 9).unwrap(), whole);
    for max in 0..5 {
        assert_eq!(device.extents(0, 512 * mib, max).unwrap(), whole[..max]);
    }
    let part = [extent(2, zero), extent(1, data), extent(2, zero)];
    assert_eq!(device.extents(2 * mib, 5 * mib, 9).unwrap(), part);
    let part = [extent(1, zero), extent(1, hole)];
    assert_eq!(device.extents(400 * mib, 2 * mib, 9).unwrap(), part);
}

/// Many stretches, so that the file system's map has to be asked for again and again.
#[test]
fn a_map_of_many_stretches_is_whole() {
    let folder = Folder::on_disk();
    let (blocks, kib) = (200, 1 << 10);
    let mut rig = Rig::new(create(&folder.path().join("disk.img"), blocks * 64 * kib, true), 4);
    for block in (0..blocks).step_by(2) {
        let zeroes = bio(Op::WriteZeroes, Flags::NOUNMAP, block * 128, 128, &[]);
        assert_eq!(rig.run(zeroes), Status::Ok);
    }
    let map = rig.device().extents(0, blocks * 64 * kib, 1000).unwrap();
    assert_eq!(map.len() as u64, blocks);
    for (block, extent) in map.iter().enumerate() {
        let kind = if block % 2 == 0 { ExtentKind::Zero } else { ExtentKind::Hole };
        assert_eq!(*extent, Extent { len_bytes: 64 * kib, kind }, "block {block}");
    }
}

/// A file system in memory can only zero a range that stays allocated by writing.
#[test]
fn zeroes_that_must_be_fast_are_not_written() {
    for (folder, allocating) in
        [(Folder::on_disk(), Status::Ok), (Folder::in_memory(), Status::NotSupp)]
    {
        let path = folder.path().join("disk.img");
        let mut rig = Rig::new(create(&path, 32 << 20, true), 4);
        let mut zeroes =
            |flags| rig.run(bio(Op::WriteZeroes, flags | Flags::NOFALLBACK, 0, 2048, &[]));
        for flags in [Flags::NOUNMAP, Flags::NOUNMAP | Flags::FUA, Flags::NOUNMAP] {
            assert_eq!(zeroes(flags), allocating);
        }
        assert_eq!(allocated(&path) > 0, allocating == Status::Ok);
        assert_eq!(zeroes(Flags::empty()), Status::Ok);
    }
}

#[test]
fn a_file_cut_short_behind_our_back_is_an_error() {
    let folder = Folder::on_disk();
    let path = folder.path().join("disk.img");
    let mut rig = Rig::new(create(&path, 1 << 20, true), 4);
    fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let memory = Pages::new(16_384);
    let segments = [memory.segment(0, 4096, None), memory.segment(4096, 4096, None)];
    assert_eq!(rig.run(bio(Op::Read, Flags::empty(), 0, 16, &segments)), Status::IoErr);
    assert_eq!(rig.run(bio(Op::Read, Flags::empty(), 0, 8, &segments[..1])), Status::Ok);
}

#[test]
fn a_full_file_system_is_told_as_no_space() {
    let folder = Folder::on_disk();
    let mount = |args: &[&str]| Command::new(args[0]).args(&args[1..]).arg(folder.path()).output();
    let mounted = mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "blkmq-test"]);
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: mounting a small file system needs root");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let mut rig = Rig::new(create(&folder.path().join("disk.img"), 4 << 20, true), 4);
        let memory = Pages::new(2 << 20);
        let write = bio(Op::Write, Flags::empty(), 0, 4096, &[memory.segment(0, 2 << 20, None)]);
        assert_eq!(rig.run(write), Status::NoSpc);
        assert_eq!(rig.run(bio(Op::Discard, Flags::empty(), 0, 4096, &[])), Status::Ok);
        let write = bio(Op::Write, Flags::empty(), 0, 8, &[memory.segment(0, 4096, None)]);
        assert_eq!(rig.run(write), Status::Ok);
    });
    assert!(mount(&["umount"]).unwrap().status.success());
    outcome.unwrap();
}

#[test]
fn limits_tell_what_a_file_takes() {
    let folder = Folder::on_disk();
    let path = folder.path().join("disk.img");
    let mut rig = Rig::new(create(&path, 1 << 20, false), 4);
    let limits = rig.device().limits();
    assert_eq!((limits.capacity_sectors, limits.logical_block_sectors), (2048, 1));
    assert!(limits.max_discard_sectors > 1 << 23 && limits.max_write_zeroes_sectors > 1 << 23);
    let memory = Pages::new(4096);
    let past_the_end = bio(Op::Write, Flags::empty(), 2047, 2, &[memory.segment(0, 1024, None)]);
    assert_eq!(rig.refusal(past_the_end), Status::NoSpc);
    drop(rig);
    let options = FileOptions { read_only: true, ..FileOptions::new(&path) };
    let mut rig = Rig::new(File::open(&options).unwrap(), 4);
    let write = bio(Op::Write, Flags::empty(), 0, 8, &[memory.segment(0, 4096, None)]);
    assert_eq!(rig.refusal(write), Status::ReadOnly);
    let read = bio(Op::Read, Flags::empty(), 0, 8, &[memory.segment(0, 4096, None)]);
    assert_eq!(rig.run(read), Status::Ok);
    assert_eq!(rig.run(flush()), Status::Ok);
}
