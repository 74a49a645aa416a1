//! What was done for each disk and volume, and what held it up.

use blkmq_core::{Hold, KindFigures};

use super::board::Board;
use crate::wire::{DiskStatus, Entry, Figures, Kind, Status, Times, VolumeStatus};

/// The status of everything.
pub(super) fn status(board: &Board) -> Status {
    let disk = |(index, disk): (usize, &super::board::Disk)| DiskStatus {
        disk: disk.name.clone(),
        driver: disk.driver.to_owned(),
        scheduler: disk.control.scheduler().to_owned(),
        nr_requests: disk.control.nr_requests(),
        requests: disk.control.held().requests,
        hw_queues: disk.control.hw_queues(),
        total: figures(&disk.control.figures_of_disk()),
        volumes: volumes(board, index),
    };
    Status { disks: board.disks.iter().enumerate().map(disk).collect() }
}

fn volumes(board: &Board, disk: usize) -> Vec<VolumeStatus> {
    let control = &board.disks[disk].control;
    let of_disk = board.volumes.iter().filter(|volume| volume.disk == disk);
    let entry = |(key, value): (&str, String)| Entry { key: key.to_owned(), value };
    of_disk
        .map(|volume| VolumeStatus {
            volume: volume.name.clone(),
            weight: control.weight(volume.on_disk),
            group: volume.group.clone(),
            limits: volume.limits().entries().into_iter().map(entry).collect(),
            figures: figures(&control.figures(volume.on_disk)),
        })
        .collect()
}

fn figures(figures: &blkmq_core::Figures) -> Figures {
    let [read, write, discard, flush] = figures.kinds.map(|of| kind(&of));
    let all_ns: u64 = figures.kinds.iter().map(|kind| kind.time_ns).sum();
    let hold = |(hold, times_of): (&Hold, &blkmq_core::Times)| crate::wire::Hold {
        reason: hold.name().to_owned(),
        times: times(times_of),
    };
    Figures {
        read,
        write,
        discard,
        flush,
        in_flight: figures.in_flight,
        io_ticks_ms: figures.io_ticks_ns / 1_000_000,
        time_in_queue_ms: all_ns / 1_000_000,
        read_latency: times(&figures.latency[0]),
        write_latency: times(&figures.latency[1]),
        holds: Hold::ALL.iter().zip(&figures.holds).map(hold).collect(),
    }
}

fn kind(kind: &KindFigures) -> Kind {
    Kind {
        ios: kind.ios,
        merges: kind.merges,
        sectors: kind.sectors,
        ticks_ms: kind.time_ns / 1_000_000,
        errors: kind.errors,
    }
}

fn times(times: &blkmq_core::Times) -> Times {
    Times {
        count: times.count(),
        p50_ns: times.percentile_ns(50.0),
        p99_ns: times.percentile_ns(99.0),
        p999_ns: times.percentile_ns(99.9),
        max_ns: times.percentile_ns(100.0),
    }
}
