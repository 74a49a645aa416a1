//! A block device: a loop device over a file, which only root can make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use blkmq_core::Driver;
use blkmq_drivers::{Device, File, FileOptions, OpenError};

use crate::folder::Folder;
use crate::model::{DEPTH, Model, SIZE_BYTES};
use crate::rig::Rig;

/// A loop device that vanishes with the test.
struct Loop(PathBuf);

impl Loop {
    /// `None`, with a word why, where there is no leave to make one.
    fn over(image: &Path, sector_size: &str) -> Option<Self> {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", sector_size])
            .arg(image)
            .output()
            .ok()?;
        if !output.status.success() {
            eprintln!("not tested: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Loop(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn against_the_model(sector_size: &str) {
    let folder = Folder::on_disk();
    let image = folder.path().join("disk.img");
    fs::File::create(&image).unwrap().set_len(SIZE_BYTES).unwrap();
    let Some(device) = Loop::over(&image, sector_size) else { return };
    let file = File::open(&FileOptions::new(&device.0)).unwrap();
    assert_eq!(file.size_bytes(), SIZE_BYTES);
    assert!(file.is_direct());
    let block_bytes: u32 = sector_size.parse().unwrap();
    assert_eq!(file.limits().logical_block_sectors, block_bytes / 512);
    let refused = File::open(&FileOptions::new(&device.0)).unwrap_err();
    let OpenError::InUse { holder: Some(holder), .. } = &refused else { panic!("{refused}") };
    assert_eq!(holder.pid(), std::process::id());
    let too_large =
        FileOptions { size_bytes: Some(SIZE_BYTES + 512), ..FileOptions::new(&device.0) };
    assert!(File::open(&too_large).is_err());
    let mut rig = Rig::new(file, DEPTH);
    Model::new(&mut rig, 5, false).run(16);
}

#[test]
fn a_block_device_holds_what_was_written() {
    against_the_model("512");
}

#[test]
fn a_block_device_with_large_blocks_holds_what_was_written() {
    against_the_model("4096");
}
