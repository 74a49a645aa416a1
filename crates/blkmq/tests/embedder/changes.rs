//! What is changed while I/O is under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use blkmq::{Builder, Class, DiskOptions, Engine, Error, Rate, Rates, Scheduler, VolumeOptions};

use crate::common::{LIMIT, Numbers, within_limit};

fn writes(engine: &Engine, seed: u64, is_over: &AtomicBool) {
    let volume = engine.volume("v").unwrap();
    let mut numbers = Numbers(seed);
    while !is_over.load(Ordering::SeqCst) {
        let at = numbers.below(256) as u64 * 4096;
        volume.write(at, vec![1; 4096]).wait().0.unwrap();
    }
}

#[test]
fn a_disk_is_changed_under_load_and_no_io_is_lost() {
    within_limit(|| {
        let mut builder = Builder::new().workers(2);
        let id = builder.memory_disk(1 << 20, DiskOptions::new().queue_depth(4)).unwrap();
        builder.volume("v", id, VolumeOptions::new().weight(7)).unwrap();
        let engine = builder.start().unwrap();
        let (disk, volume) = (engine.disk(id), engine.volume("v").unwrap());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (engine, is_over) = (&engine, &is_over);
                scope.spawn(move || writes(engine, seed, is_over));
            }
            for round in 1..=20 {
                disk.set_scheduler(Scheduler::MqDeadline).unwrap();
                assert_eq!(disk.scheduler().unwrap(), "mq-deadline");
                disk.set_attribute("writes_starved", "5").unwrap();
                disk.set_nr_requests(round * 3).unwrap();
                assert_eq!(disk.nr_requests().unwrap(), round * 3);
                let attributes = disk.attributes().unwrap();
                assert!(attributes.contains(&("writes_starved", "5".to_owned())), "{round}");
                disk.set_scheduler(Scheduler::None).unwrap();
                assert_eq!(disk.scheduler().unwrap(), "none");
            }
            is_over.store(true, Ordering::SeqCst);
        });
        assert_eq!(volume.weight().unwrap(), 7);
        volume.set_weight(1000).unwrap();
        assert_eq!(volume.weight().unwrap(), 1000);
        assert!(matches!(volume.set_weight(1001), Err(Error::Setting { .. })));
        assert!(matches!(disk.set_nr_requests(0), Err(Error::Setting { .. })));
        assert!(matches!(disk.set_attribute("read_expire", "1"), Err(Error::Attribute(_))));
        let figures = volume.figures().unwrap();
        assert_eq!(figures, disk.figures().unwrap(), "it is the only volume");
        assert!(figures.kinds.iter().map(|kind| kind.ios).sum::<u64>() > 0);
        assert_eq!(figures.kinds.iter().map(|kind| kind.errors).sum::<u64>(), 0);
        engine.shutdown(LIMIT).unwrap();
        assert!(matches!(disk.set_scheduler(Scheduler::None), Err(Error::Closed)));
        assert!(matches!(volume.figures(), Err(Error::Closed)));
    });
}

#[test]
fn limits_hold_a_volume_back_until_they_are_taken_away() {
    within_limit(|| {
        let iops = Rate { per_second: 100, burst: Duration::from_millis(20) };
        let limits = Rates { iops: Some(iops), ..Rates::default() };
        let mut builder = Builder::new();
        let id = builder.memory_disk(1 << 20, DiskOptions::new()).unwrap();
        builder.volume("held", id, VolumeOptions::new().limits(limits)).unwrap();
        builder.volume("free", id, VolumeOptions::new()).unwrap();
        let nothing = Rate { per_second: 0, ..iops };
        let nothing = Rates { iops: Some(nothing), ..Rates::default() };
        let refused = builder.volume("none", id, VolumeOptions::new().limits(nothing));
        assert!(matches!(refused, Err(Error::Setting { setting: "iops", .. })));
        let engine = builder.start().unwrap();
        let run = |name: &str| {
            let (volume, start) = (engine.volume(name).unwrap(), Instant::now());
            for _ in 0..30 {
                let request = volume.read(0, vec![0; 512]).priority(Class::RealTime, 0);
                request.wait().0.unwrap();
            }
            start.elapsed()
        };
        // 30 at 100 a second, of which two or three pass at once.
        let (held, free) = (run("held"), run("free"));
        assert!(held >= Duration::from_millis(250), "{held:?}");
        assert!(free < held, "{free:?}");
        engine.volume("held").unwrap().set_limits(&Rates::default()).unwrap();
        let freed = run("held");
        assert!(freed < held, "{freed:?}");
        engine.shutdown(LIMIT).unwrap();
    });
}
