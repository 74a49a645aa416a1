//! How long volumes are, and how that is changed while they are served.

use std::sync::{Mutex, PoisonError};

use blkmq_exports::nbd::server::Published;
use blkmq_runtime::{VolumeId, VolumeSizes};

use crate::config::Config;
use crate::units::{parse_size, render_size};
use crate::wire::Failure;

/// The volumes on their disks. Numbers are those of the configuration's lists.
pub(in crate::server) struct Space {
    places: Vec<Place>,
    sizes: VolumeSizes,
    exports: Published,
    /// One change at a time, so that two volumes do not grow into the same gap.
    changing: Mutex<()>,
}

/// Where a volume lies.
struct Place {
    name: String,
    disk: usize,
    disk_name: String,
    disk_bytes: u64,
    offset_bytes: u64,
    block_bytes: u64,
}

impl Space {
    /// The volumes of `config`, each with the logical block of its disk.
    pub(in crate::server) fn new(
        config: &Config,
        block_bytes: &[u64],
        sizes: VolumeSizes,
        exports: Published,
    ) -> Space {
        let places = config.volumes.iter().zip(block_bytes).map(|(volume, block_bytes)| Place {
            name: volume.name.clone(),
            disk: volume.disk,
            disk_name: config.disks[volume.disk].name.clone(),
            disk_bytes: config.disks[volume.disk].size_bytes,
            offset_bytes: volume.offset_bytes,
            block_bytes: *block_bytes,
        });
        Space { places: places.collect(), sizes, exports, changing: Mutex::default() }
    }

    /// How long a volume is, in bytes.
    pub(super) fn size_bytes(&self, volume: usize) -> u64 {
        self.sizes.get(VolumeId(volume))
    }

    /// Makes a volume as long as `value` says. Clients who connect from now on see it; those who
    /// are there keep to what they were told, and beyond the end of what has become shorter they
    /// are refused.
    pub(super) fn resize(&self, volume: usize, value: &str) -> Result<(), Failure> {
        let key = format!("volume.{}.size", self.places[volume].name);
        let size_bytes = parse_size(value)
            .map_err(|error| Failure::wrong(format!("`{key}`: {error}"), error.mend()))?;
        // What is guarded is the change itself.
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(volume, size_bytes)?;
        let is_longer = size_bytes > self.size_bytes(volume);
        // Nobody is told of room before it is there.
        if is_longer {
            self.sizes.set(VolumeId(volume), size_bytes);
        }
        self.exports
            .resize(volume, size_bytes)
            .map_err(|error| Failure::wrong(error.to_string(), "choose another size"))?;
        if !is_longer {
            self.sizes.set(VolumeId(volume), size_bytes);
        }
        Ok(())
    }

    /// Refuses what is no size for a volume, or does not fit where it lies.
    fn check(&self, volume: usize, size_bytes: u64) -> Result<(), Failure> {
        let place = &self.places[volume];
        let Place { name, disk_name, block_bytes, .. } = place;
        if size_bytes == 0 || !size_bytes.is_multiple_of(*block_bytes) {
            let what = format!("volume `{name}` cannot be {size_bytes} bytes long");
            let mend = format!("write a size above 0 that is a multiple of {block_bytes}");
            return Err(Failure::wrong(what, mend));
        }
        let next = self
            .places
            .iter()
            .filter(|other| other.disk == place.disk && other.offset_bytes > place.offset_bytes);
        let next = next.min_by_key(|other| other.offset_bytes);
        let (room_end, who) = match next {
            Some(next) => (next.offset_bytes, format!("volume `{}`", next.name)),
            None => (place.disk_bytes, format!("the end of disk `{disk_name}`")),
        };
        let room_bytes = room_end - place.offset_bytes;
        if size_bytes > room_bytes {
            let what = format!(
                "volume `{name}` cannot be {} long: {who} is in its way",
                render_size(size_bytes)
            );
            let mend = format!("make it at most {} long", render_size(room_bytes));
            return Err(Failure::wrong(what, mend));
        }
        Ok(())
    }
}
