//! What goes wrong says so, with numbers, and gives the memory back.

use std::io;
use std::time::Duration;

use blkmq::{Builder, Class, DiskOptions, Error, FileOptions, VolumeOptions};

use crate::common::{On, builder, engine, folder, within_limit};

fn said(result: Result<(), Error>) -> (String, io::ErrorKind) {
    let error = result.expect_err("it makes no sense");
    let text = error.to_string();
    let error = io::Error::from(error);
    assert_eq!(error.to_string(), text, "nothing is lost on the way to std's error");
    assert!(error.get_ref().is_some_and(|inner| inner.is::<Error>()));
    (text, error.kind())
}

#[test]
fn what_makes_no_sense_is_refused_with_numbers() {
    within_limit(|| {
        let folder = folder();
        let engine = engine(On::Memory, &folder, 1 << 20, 1);
        let volume = engine.volume("v").unwrap();
        let invalid = io::ErrorKind::InvalidInput;
        let (result, bytes) = volume.read(1 << 20, vec![3; 512]).wait();
        let text = "512 bytes at 1048576 do not lie within the 1048576 bytes of volume v";
        assert_eq!(said(result), (text.to_owned(), invalid));
        assert_eq!(bytes, [3; 512], "the memory comes back");
        let text = "512 bytes at 100 are not whole blocks of 512 bytes";
        assert_eq!(said(volume.write(100, vec![0; 512]).wait().0), (text.to_owned(), invalid));
        let text = "100 bytes at 512 are not whole blocks of 512 bytes";
        assert_eq!(said(volume.discard(512, 100).wait()), (text.to_owned(), invalid));
        let overflow = said(volume.write_zeroes(u64::MAX - 511, 1024).wait());
        assert_eq!(overflow.1, invalid, "{overflow:?}");
        volume.read(512, Vec::<u8>::new()).wait().0.expect("nothing is done at once");
        assert!(matches!(engine.volume("w"), Err(Error::NoVolume { .. })));
        engine.shutdown(Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn what_is_too_long_is_refused() {
    let mut builder = Builder::new();
    let disk = builder.null_disk(1 << 42, DiskOptions::new()).unwrap();
    builder.volume("v", disk, VolumeOptions::new()).unwrap();
    let engine = builder.start().unwrap();
    let volume = engine.volume("v").unwrap();
    let result = volume.write_zeroes(0, 1 << 41).wait();
    let text = "a write-zeroes of 2199023255552 bytes is too long: the most is 2199023255040";
    assert_eq!(said(result), (text.to_owned(), io::ErrorKind::InvalidInput));
}

#[test]
fn a_read_only_volume_is_not_written_to_and_a_read_only_disk_neither() {
    within_limit(|| {
        let folder = folder();
        let options = (DiskOptions::new(), VolumeOptions::new().read_only(true));
        let engine = builder(On::File, &folder, 1 << 20, 1, options).start().unwrap();
        let volume = engine.volume("v").unwrap();
        let refused = said(volume.write(0, vec![0; 4096]).wait().0);
        let text = "v is read-only; the write was refused";
        assert_eq!(refused, (text.to_owned(), io::ErrorKind::ReadOnlyFilesystem));
        engine.shutdown(Duration::from_secs(10)).unwrap();

        let mut builder = Builder::new();
        let path = folder.path().join("disk");
        let file = FileOptions { read_only: true, ..FileOptions::new(path) };
        let disk = builder.file_disk(&file, DiskOptions::new()).unwrap();
        builder.volume("v", disk, VolumeOptions::new()).unwrap();
        let engine = builder.start().unwrap();
        let volume = engine.volume("v").unwrap();
        assert!(volume.is_read_only());
        assert!(matches!(volume.discard(0, 4096).wait(), Err(Error::ReadOnly { .. })));
        volume.read(0, vec![1; 4096]).wait().0.unwrap();
        engine.shutdown(Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn an_engine_that_cannot_be_is_refused() {
    let mut builder = Builder::new();
    let zero = builder.memory_disk(1 << 20, DiskOptions::new().nr_requests(0));
    let text = "nr_requests is 0; it has to be between 1 and 32768";
    assert_eq!(zero.unwrap_err().to_string(), text);
    let disk = builder.memory_disk(1 << 20, DiskOptions::new()).unwrap();
    let beyond = VolumeOptions::new().offset_bytes(4096).size_bytes(1 << 20);
    let text = "1048576 bytes at 4096 do not lie within the 1048576 bytes of the disk";
    assert_eq!(builder.volume("v", disk, beyond).unwrap_err().to_string(), text);
    let odd = VolumeOptions::new().offset_bytes(5);
    assert!(matches!(builder.volume("v", disk, odd), Err(Error::Unaligned { .. })));
    builder.volume("v", disk, VolumeOptions::new()).unwrap();
    let again = builder.volume("v", disk, VolumeOptions::new());
    assert!(matches!(again, Err(Error::SameName { .. })));
    let none = FileOptions::new("/nonexistent/disk");
    let missing = io::Error::from(builder.file_disk(&none, DiskOptions::new()).unwrap_err());
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(matches!(builder.workers(65).start(), Err(Error::Setting { .. })));
}

#[test]
#[should_panic(expected = "between 0 and 7, not 8")]
fn there_is_no_level_8() {
    let _ = VolumeOptions::new().priority(Class::Idle, 8);
}
