use super::*;

fn file(text: &str) -> Result<Jobs, Complaints> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("job.fio");
    std::fs::write(&path, text).unwrap();
    load("bench", &[], Some(&path)).map_err(|Complaints(list)| {
        let unnamed = |complaint: Complaint| Complaint { source: "job.fio".into(), ..complaint };
        Complaints(list.into_iter().map(unnamed).collect())
    })
}

fn words(line: &str) -> Result<Jobs, Complaints> {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    load("bench", &words, None)
}

fn one(line: &str) -> Job {
    let jobs = words(line).unwrap_or_else(|errors| panic!("{errors}\nin {line}"));
    jobs.jobs.into_iter().next().unwrap()
}

#[test]
fn jobs_inherit_from_every_global_section_before_them() {
    let jobs = file(
        "[global]\nbs=8k\niodepth=4\nioengine=libaio\ndirect=1\n[a]\nrw=randread\nioengine=sync\n\
         [global]\niodepth=16\n[b]\nbs=64k\nstonewall\n\
         ;blkmq: weight=800 tenant=gold\n[c]\nname=d\n",
    )
    .unwrap();
    let [a, b, d] = &jobs.jobs[..] else { panic!("three jobs") };
    assert_eq!((a.name.as_str(), a.iodepth, a.rw.random, a.stonewall), ("a", 4, true, false));
    assert_eq!(a.block_sizes, [const { BlockSizes::One(8192) }; 3]);
    assert_eq!((b.name.as_str(), b.iodepth, b.rw.random, b.stonewall), ("b", 16, false, true));
    assert_eq!((b.weight, b.tenant.as_deref()), (Some(800), Some("gold")));
    assert_eq!(b.block_sizes[0], BlockSizes::One(65_536));
    assert_eq!((d.name.as_str(), d.iodepth, d.stonewall, d.weight), ("d", 16, false, None));
    let echo = |list: &[(String, String)]| {
        list.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(echo(&jobs.global_options), "bs=8k iodepth=4 iodepth=16");
    assert_eq!(echo(&b.options), "bs=64k stonewall=1 weight=800 tenant=gold");
    assert_eq!(jobs.meaningless, ["ioengine", "direct"], "each once");
}

#[test]
fn nothing_said_is_what_fio_does() {
    let job = one("");
    assert_eq!(job, Job::new("bench"));
    assert_eq!((job.iodepth, job.numjobs, job.rw.mix, job.rw.random), (1, 1, Mix::Read, false));
    assert_eq!(job.block_sizes[1], BlockSizes::One(4096));
}

#[test]
fn every_option_is_read() {
    let job =
        one("rw=randrw bs=4k,8k iodepth=32 numjobs=4 size=1G offset=1M offset_increment=256M \
         runtime=10 time_based ramp_time=500ms startdelay=2s stonewall number_ios=1k rwmixread=70 \
         rate_iops=1000,500 rate=10M,,1M thinktime=100 thinktime_blocks=8 prio=3 prioclass=1 \
         fsync=32 norandommap randseed=7 group_reporting weight=800 tenant=gold group=metals");
    let expected = Job {
        name: "bench".into(),
        rw: Rw { random: true, mix: Mix::ReadWrite },
        block_sizes: [BlockSizes::One(4096), BlockSizes::One(8192), BlockSizes::One(8192)],
        iodepth: 32,
        numjobs: 4,
        size_bytes: Some(1 << 30),
        offset_bytes: 1 << 20,
        offset_increment_bytes: 256 << 20,
        runtime: Some(Duration::from_secs(10)),
        time_based: true,
        ramp_time: Duration::from_millis(500),
        start_delay: Duration::from_secs(2),
        stonewall: true,
        number_ios: Some(1024),
        rwmixread: 70,
        rate_iops: [Some(1000), Some(500), Some(500)],
        rate_bytes: [Some(10 << 20), None, Some(1 << 20)],
        thinktime: Duration::from_micros(100),
        thinktime_blocks: 8,
        prio: Some(3),
        prioclass: Class::RealTime,
        fsync: Some(32),
        norandommap: true,
        randseed: 7,
        group_reporting: true,
        weight: Some(800),
        tenant: Some("gold".into()),
        group: Some("metals".into()),
        options: Vec::new(),
    };
    assert_eq!(Job { options: Vec::new(), ..job }, expected);
}

#[test]
fn block_sizes_come_in_three_forms() {
    use BlockSizes::{One, Range, Split};
    let table: &[(&str, [BlockSizes; 3])] = &[
        ("bs=8k,", [One(8192), One(4096), One(4096)]),
        ("bs=,8k", [One(4096), One(8192), One(8192)]),
        ("bs=1k,2k,512", [One(1024), One(2048), One(512)]),
        ("bsrange=1k-4k", [const { Range { min: 1024, max: 4096 } }; 3]),
        (
            "bsrange=1k-4k,2k:2k",
            [
                Range { min: 1024, max: 4096 },
                Range { min: 2048, max: 2048 },
                Range { min: 2048, max: 2048 },
            ],
        ),
        (
            "bssplit=4k/70:64k/30,8k",
            [
                Split(vec![(4096, 70), (65_536, 30)]),
                Split(vec![(8192, 100)]),
                Split(vec![(8192, 100)]),
            ],
        ),
        ("bs=64k bssplit=4k/:8k/:16k/10,", {
            [Split(vec![(4096, 45), (8192, 45), (16_384, 10)]), One(65_536), One(65_536)]
        }),
        (
            "bssplit=1k:2k:4k,",
            [Split(vec![(1024, 34), (2048, 33), (4096, 33)]), One(4096), One(4096)],
        ),
    ];
    for (line, sizes) in table {
        assert_eq!(one(line).block_sizes, *sizes, "{line}");
    }
}

#[test]
fn wrong_options_are_told_with_the_mend() {
    let table = [
        ("rww=read", "there is no job option `rww`\n  mend: did you mean `rw`?"),
        ("io-depth=3", "there is no job option `io-depth`\n  mend: did you mean `iodepth`?"),
        ("bs", "`bs` has no value\n  mend: write bs=..."),
        (
            "rw=randomread",
            "`rw`: there is no kind of load `randomread`\n  mend: did you mean `randread`?",
        ),
        (
            "rw=randread:8",
            "`rw`: `randread:8` is not there yet\n  mend: use read, write, trim, rw, randread, \
             randwrite, randtrim or randrw, without a colon",
        ),
        ("iodepth=0", "`iodepth`: 0 is out of range\n  mend: write a number from 1 to 65536"),
        ("iodepth=x", "`iodepth`: `x` is no number\n  mend: write a whole number"),
        ("weight=1001", "`weight`: 1001 is out of range\n  mend: write a number from 1 to 1000"),
        ("time_based=yes", "`time_based`: `yes` is neither 0 nor 1\n  mend: write 0 or 1"),
        ("bs=1000", "`bs`: 1000 is no multiple of 512\n  mend: write 512 or 1024"),
        ("bs=0", "`bs`: the size is 0\n  mend: write a size above 0, as in 512M"),
        ("bs=64M", "`bs`: `64M` is too long for one I/O\n  mend: write a length of at most 32M"),
        (
            "bs=1k,2k,3k,4k",
            "`bs`: `1k,2k,3k,4k` has 4 values\n  \
             mend: give at most three values: for reads, writes and trims",
        ),
        (
            "bs=",
            "`bs`: `` is not a size\n  \
             mend: write a whole number of bytes, or one with k, M, G or T, as in \"512M\"",
        ),
        (
            "bsrange=8k-4k",
            "`bsrange`: `8k-4k` begins after its end\n  \
             mend: write the least and the most, as in 4k-64k",
        ),
        (
            "bssplit=4k/50:8k/40",
            "`bssplit`: the shares of `4k/50:8k/40` add up to 90\n  \
             mend: write lengths with shares that add up to 100, as in 4k/80:64k/20",
        ),
        (
            "size=50%",
            "`size`: `50%`: shares of the device are not there yet\n  \
             mend: write a size, as in 512M",
        ),
        (
            "runtime=5x",
            "`runtime`: `5x` is not a time\n  \
             mend: write a whole number with us, ms, s, m or h, as in \"500ms\"",
        ),
        (
            "time_based",
            "job `bench` is time_based and has no runtime\n  \
             mend: add how long it shall run, as in runtime=10",
        ),
    ];
    for (line, told) in table {
        let error = words(line).expect_err(line).to_string();
        assert_eq!(error, format!("job options: {told}"), "{line}");
    }
}

#[test]
fn a_wrong_line_of_a_file_is_named() {
    let error =
        file("[global]\nbs=4k\n[a]\n# comment\nrw=raed\n;blkmq: weigth=3\n[b]\ntime_based\n");
    assert_eq!(
        error.unwrap_err().to_string(),
        "job.fio:5: `rw`: there is no kind of load `raed`\n  mend: did you mean `read`?\n\
         job.fio:6: there is no job option `weigth`\n  mend: did you mean `weight`?\n\
         job.fio:7: job `b` is time_based and has no runtime\n  \
         mend: add how long it shall run, as in runtime=10"
    );
    let error = file("[global]\nbs=4k\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "job.fio: describes no job\n  mend: add a section with a name, as in [reader]"
    );
    let error = load("x", &[], Some(Path::new("/nonexistent.fio"))).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent.fio: cannot be read: "), "{error}");
}

#[test]
fn options_before_the_first_name_are_what_files_begin_with() {
    let jobs = words("bs=8k name=a rw=write name=b").unwrap().jobs;
    let summary: Vec<_> = jobs.iter().map(|job| (job.name.as_str(), job.rw.mix)).collect();
    assert_eq!(summary, [("a", Mix::Write), ("b", Mix::Read)]);
    assert!(jobs.iter().all(|job| job.block_sizes[0] == BlockSizes::One(8192)));
}

#[test]
fn every_option_says_whether_it_has_a_value() {
    assert_eq!(takes("rw"), Some(Takes::Value));
    assert_eq!(takes("blocksize"), Some(Takes::Value));
    assert_eq!(takes("time_based"), Some(Takes::Flag));
    assert_eq!(takes("ioengine"), Some(Takes::Value));
    assert_eq!(takes("driver"), None);
    for name in names() {
        assert!(takes(name).is_some());
    }
}
