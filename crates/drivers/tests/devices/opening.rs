//! What files are opened, and how others are refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use blkmq_drivers::{Device, File, FileOptions, OpenError};

use crate::folder::Folder;
use crate::in_file::create;

fn open(path: &Path, size_bytes: Option<u64>) -> Result<File, OpenError> {
    File::open(&FileOptions { size_bytes, ..FileOptions::new(path) })
}

#[test]
fn a_missing_file_is_made_with_its_folders() {
    let folder = Folder::on_disk();
    let path = folder.path().join("a/b/disk.img");
    let error = open(&path, None).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    assert!(!path.parent().unwrap().exists());
    let file = open(&path, Some(1 << 30)).unwrap();
    assert_eq!(file.size_bytes(), 1 << 30);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
    drop(file);
    assert_eq!(open(&path, None).unwrap().size_bytes(), 1 << 30);
}

#[test]
fn a_second_server_is_refused_and_told_of_the_first() {
    let folder = Folder::on_disk();
    let path = folder.path().join("disk.img");
    let file = create(&path, 1 << 20, true);
    let error = open(&path, None).unwrap_err();
    let OpenError::InUse { holder: Some(holder), .. } = &error else { panic!("{error}") };
    assert_eq!(holder.pid(), std::process::id());
    let message = error.to_string();
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    let read_only = FileOptions { read_only: true, ..FileOptions::new(&path) };
    assert!(matches!(File::open(&read_only), Err(OpenError::InUse { .. })));
    drop(file);
    // Readers share, and keep writers out.
    let _readers = [File::open(&read_only).unwrap(), File::open(&read_only).unwrap()];
    assert!(matches!(open(&path, None), Err(OpenError::InUse { .. })));
}

#[test]
fn another_process_is_named() {
    let folder = Folder::on_disk();
    let path = folder.path().join("disk.img");
    drop(create(&path, 1 << 20, true));
    let mut holder = Command::new("flock")
        .args(["--no-fork", "--exclusive"])
        .arg(&path)
        .args(["sh", "-c", "echo locked; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("util-linux has flock");
    let mut locked = [0; 7];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut locked).unwrap();
    let refused = open(&path, None);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let message = refused.unwrap_err().to_string();
    assert!(message.contains(&format!("process {} (", holder.id())), "{message}");
    open(&path, None).unwrap();
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let folder = Folder::on_disk();
    let path = folder.path().join("disk.img");
    fs::write(&path, vec![1; 1_000_000]).unwrap();
    let error = open(&path, Some(1 << 20)).unwrap_err();
    assert!(matches!(error, OpenError::TooSmall { .. }));
    let message = error.to_string();
    assert!(message.contains("1000000") && message.contains("1048576"), "{message}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1_000_000);
    for bad in [0, 1000] {
        assert!(matches!(open(&path, Some(bad)), Err(OpenError::BadSize { .. })));
    }
    // A larger file is served up to the size asked for, and without one, down to whole sectors.
    assert_eq!(open(&path, Some(512 << 10)).unwrap().size_bytes(), 512 << 10);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1_000_000);
    let whole = File::open(&FileOptions { direct: false, ..FileOptions::new(&path) }).unwrap();
    assert_eq!(whole.size_bytes(), 1_000_000 / 512 * 512);
    drop(whole);
    // An empty file holds nothing that could be lost.
    fs::write(&path, []).unwrap();
    assert!(matches!(open(&path, None), Err(OpenError::Empty { .. })));
    assert_eq!(open(&path, Some(1 << 20)).unwrap().size_bytes(), 1 << 20);
}

#[test]
fn what_stores_nothing_is_refused() {
    let folder = Folder::on_disk();
    for path in [folder.path(), Path::new("/dev/null")] {
        assert!(matches!(open(path, None), Err(OpenError::NotStorage { .. })));
    }
    fs::write(folder.path().join("file"), [0; 512]).unwrap();
    let below_a_file = open(&folder.path().join("file/disk.img"), Some(512)).unwrap_err();
    assert!(below_a_file.to_string().contains("a folder on the way is a file"), "{below_a_file}");
}

#[test]
fn the_logical_block_may_be_raised_and_not_lowered() {
    let folder = Folder::on_disk();
    let path = folder.path().join("disk.img");
    let with = |logical_block_bytes| {
        let size_bytes = Some((1 << 20) + 512);
        File::open(&FileOptions { size_bytes, logical_block_bytes, ..FileOptions::new(&path) })
    };
    let file = with(Some(16 << 10)).unwrap();
    assert_eq!(file.block_sizes().minimum_bytes, 16 << 10);
    assert_eq!(file.size_bytes(), 1 << 20, "whole blocks of it");
    drop(file);
    for wrong in [256, 12 << 10, 128 << 10] {
        let error = with(Some(wrong)).unwrap_err();
        assert!(matches!(error, OpenError::BadBlock { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{wrong} bytes")), "{error}");
    }
}
