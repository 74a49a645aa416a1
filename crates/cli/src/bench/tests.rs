use super::*;
use crate::job;
use crate::stats::KindStats;

fn options(driver: DriverName) -> Options {
    Options {
        driver,
        path: None,
        model: ModelSpec::default(),
        scheduler: SchedulerName::None,
        nr_requests: 256,
        queue_depth: None,
        hw_queues: None,
        limits: Rates::default(),
    }
}

fn jobs(line: &str) -> Jobs {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    job::load("bench", &words, None).unwrap()
}

fn ran(options: &Options, line: &str) -> Vec<JobReport> {
    run(options, &jobs(line)).unwrap_or_else(|error| panic!("{error}\nin {line}")).jobs
}

fn ios(report: &JobReport) -> [u64; 3] {
    [0, 1, 2].map(|kind: usize| report.stats.kinds[kind].ios())
}

#[test]
fn every_io_of_a_job_is_done_and_counted() {
    for scheduler in [SchedulerName::None, SchedulerName::MqDeadline] {
        for (queue_depth, hw_queues) in [(None, None), (Some(1), Some(2)), (Some(3), Some(1))] {
            let options =
                Options { scheduler, queue_depth, hw_queues, ..options(DriverName::Null) };
            for line in [
                "rw=randread size=4M iodepth=8",
                "rw=randread size=4M iodepth=1",
                "rw=randread size=1M iodepth=8 numjobs=4 group_reporting",
            ] {
                let reports = ran(&options, line);
                assert_eq!(reports.len(), 1, "{line}");
                assert_eq!(ios(&reports[0]), [1024, 0, 0], "{line} with {options:?}");
                assert_eq!(reports[0].stats.kinds[0].bytes(), 4 << 20);
                assert_eq!(reports[0].error, 0);
            }
        }
    }
}

#[test]
fn what_exceeds_the_queue_waits_and_is_done() {
    let options = Options { nr_requests: 4, queue_depth: Some(2), ..options(DriverName::Null) };
    let reports = ran(&options, "rw=randwrite size=1M iodepth=64 numjobs=3");
    assert_eq!(reports.len(), 3);
    for report in reports {
        assert_eq!(ios(&report), [0, 256, 0]);
    }
}

#[test]
fn memory_keeps_what_was_written_between_groups() {
    let line = "size=1M name=w rw=write fsync=16 name=t stonewall rw=randtrim name=m rw=randrw";
    let reports = ran(&options(DriverName::Memory), line);
    let groups: Vec<_> = reports.iter().map(|report| report.group).collect();
    assert_eq!(groups, [0, 1, 1]);
    assert_eq!(ios(&reports[0]), [0, 256, 0]);
    assert_eq!(reports[0].stats.sync.n(), 16);
    assert_eq!(ios(&reports[1]), [0, 0, 256]);
    assert_eq!(reports[2].stats.kinds.iter().map(KindStats::ios).sum::<u64>(), 256);
}

#[test]
fn a_file_is_created_and_worked_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        path: Some(dir.path().join("x.img")),
        scheduler: SchedulerName::MqDeadline,
        queue_depth: Some(4),
        hw_queues: Some(2),
        ..options(DriverName::File)
    };
    let reports = ran(&options, "rw=randrw size=2M bs=8k iodepth=8 numjobs=3 offset_increment=2M");
    assert_eq!(reports.len(), 3);
    for report in &reports {
        let done = ios(report);
        assert_eq!((done[0] + done[1], report.error), (256, 0));
    }
    let size_bytes = std::fs::metadata(dir.path().join("x.img")).unwrap().len();
    assert_eq!(size_bytes, 6 << 20);
}

fn modelled(model: &str) -> Options {
    let model = ModelSpec::parse(model).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    Options { model, ..options(DriverName::Model) }
}

/// However a device refuses requests, and whoever has them tried again, all of them are done.
#[test]
fn a_model_that_is_often_busy_strands_nothing() {
    let busy = "busy_completion=20%,busy_kick=20%:30us,busy_retry=20%:40us,late=2%:1ms";
    let models = [
        "slots=1,read=20us,jitter=20us".to_owned(),
        "slots=3,read=50us".to_owned(),
        format!("slots=64,{busy}"),
        format!("slots=2,read=20us,jitter=20us,seed=3,{busy}"),
    ];
    for model in models {
        for scheduler in [SchedulerName::None, SchedulerName::MqDeadline] {
            for (queue_depth, hw_queues) in [(None, Some(4)), (Some(3), Some(2)), (None, Some(1))] {
                let options = Options { scheduler, queue_depth, hw_queues, ..modelled(&model) };
                let line = "rw=randread size=1M iodepth=8 numjobs=4 group_reporting";
                let reports = ran(&options, line);
                assert_eq!(ios(&reports[0]), [1024, 0, 0], "{options:?}");
                assert_eq!(reports[0].error, 0);
            }
        }
    }
}

#[test]
fn a_model_takes_its_time_and_no_more_at_once_than_it_has_slots() {
    // 40 reads of 2 ms by two, from four threads. One at a time from each: none is merged.
    let options = Options { hw_queues: Some(2), ..modelled("slots=2,read=2ms") };
    let line = "rw=read size=40k iodepth=1 numjobs=4 group_reporting";
    let report = ran(&options, line).remove(0);
    assert_eq!(ios(&report)[0], 40);
    assert!(report.elapsed.as_millis() >= 40, "{:?}", report.elapsed);
}

#[test]
fn a_model_fails_where_it_is_bad_and_elsewhere_keeps_what_was_written() {
    let options = modelled("slots=4,write=10us,bad=4096+8");
    let line = "size=1M name=w rw=write name=r stonewall rw=read";
    let reports = ran(&options, line);
    assert_eq!(reports.iter().map(|report| report.error).collect::<Vec<_>>(), [0, 0]);
    let report = ran(&options, "rw=write size=4M").remove(0);
    assert_ne!(report.error, 0);
    assert_eq!(ios(&report), [0, 512, 0], "those before the bad sectors");
}

#[test]
fn rates_and_runtime_are_kept() {
    let line = "rw=randread size=1M time_based runtime=400ms rate_iops=1000 iodepth=4";
    let report = ran(&options(DriverName::Null), line).remove(0);
    let done = ios(&report)[0];
    // The machine may be busy, so less is no fault; more would be.
    assert!((100..=402).contains(&done), "{done} I/Os");
    let runtime = report.stats.runtime.as_millis();
    assert!((300..=450).contains(&runtime), "{runtime} ms");
}

#[test]
fn a_ramp_is_not_counted() {
    let line = "rw=randread size=1M time_based runtime=100ms ramp_time=200ms rate_iops=1000";
    let report = ran(&options(DriverName::Null), line).remove(0);
    let done = ios(&report)[0];
    assert!((10..=110).contains(&done), "{done} I/Os");
    assert!(report.elapsed.as_millis() >= 290);
}

#[test]
fn delays_and_pauses_take_their_time() {
    let line = "rw=read size=40k thinktime=10ms thinktime_blocks=2 startdelay=50ms iodepth=2";
    let report = ran(&options(DriverName::Null), line).remove(0);
    assert_eq!(ios(&report)[0], 10);
    assert!(report.elapsed.as_millis() >= 80, "{:?}", report.elapsed);
    assert!(report.stats.runtime.as_millis() >= 40, "{:?}", report.stats.runtime);
}

#[test]
fn jobs_that_do_not_fit_are_refused() {
    let refused = |options: &Options, line: &str| {
        let error = run(options, &jobs(line)).expect_err(line);
        assert!(error.is::<Complaint>() || error.is::<Complaints>(), "{error}");
        error.to_string()
    };
    let null = options(DriverName::Null);
    assert_eq!(
        refused(&null, "offset=2G numjobs=3"),
        "blkmq bench: job `bench` ends at 2G, past the end of the device (1G)\n  \
         mend: change size, offset or bs"
    );
    assert_eq!(
        refused(&null, "numjobs=1024 iodepth=256 bs=32M"),
        "blkmq bench: the I/Os of all jobs would take 8T of memory, above 4G\n  \
         mend: lower iodepth, bs or numjobs"
    );
    assert_eq!(
        refused(&options(DriverName::File), "rw=read"),
        "blkmq bench: driver `file` needs a file\n  mend: add --path FILE"
    );
    let missing = Options { path: Some("/proc/none/x".into()), ..options(DriverName::File) };
    assert!(refused(&missing, "rw=read").contains("\n  mend: "));
}

#[test]
fn a_failing_io_ends_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.img");
    // A file that shrinks under the bench reads short, which is an error of the device.
    let options = Options { path: Some(path.clone()), ..options(DriverName::File) };
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let shrink = std::thread::spawn({
        let path = path.clone();
        move || {
            std::thread::sleep(std::time::Duration::from_millis(150));
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
        }
    });
    let line = "rw=randread size=1M time_based runtime=20 rate_iops=2000";
    let report = ran(&options, line).remove(0);
    shrink.join().unwrap();
    assert_ne!(report.error, 0);
    assert!(report.elapsed.as_secs() < 10, "it ended when it failed");
}
