use std::time::Duration;

use blkmq_core::{Class, DeadlineConfig};

use super::*;
use crate::limits::LimitsSpec;
use crate::model::ModelSpec;

fn around() -> Surroundings {
    Surroundings { state_dir: "/state/blkmq".into(), base_dir: "/etc/blkmq".into(), cpus: 3 }
}

fn good(text: &str) -> Config {
    parse("t.toml", text, &around()).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

fn wrong(text: &str) -> String {
    let read = parse("t.toml", text, &around());
    read.err().unwrap_or_else(|| panic!("this is not refused:\n{text}")).to_string()
}

fn limits(text: &str) -> LimitsSpec {
    crate::limits::parse(text).unwrap_or_else(|_| panic!("{text} are no limits"))
}

const TWO_VOLUMES: &str = "[disk.d]\ndriver = 'memory'\nsize = '1G'\n";

#[test]
fn the_built_in_configuration_is_what_an_empty_file_means() {
    let built_in = good(&builtin::text(&around().state_dir));
    assert_eq!(good(""), built_in);
    assert_eq!(good("# only a comment\n"), built_in);
    assert_eq!(good("[server]\nstop_timeout = '30s'\n"), built_in);
    let disk = Disk {
        name: "main".into(),
        driver: Driver::File { path: "/state/blkmq/main.img".into() },
        size_bytes: 1 << 30,
        logical_block_bytes: None,
        scheduler: Scheduler::MqDeadline(DeadlineConfig::default()),
        nr_requests: 256,
        queue_depth: None,
        hw_queues: 3,
        io_timeout: Some(Duration::from_secs(30)),
    };
    assert_eq!(built_in.disks, [disk]);
    let places: Vec<_> = built_in
        .volumes
        .iter()
        .map(|v| (v.name.as_str(), v.offset_bytes, v.size_bytes, v.weight, v.read_only))
        .collect();
    assert_eq!(
        places,
        [("gold", 0, 512 << 20, 800, false), ("bronze", 512 << 20, 512 << 20, 100, false)]
    );
    let half_a_minute = Duration::from_secs(30);
    let server = Server {
        memory_limit_bytes: 256 << 20,
        stop_timeout: half_a_minute,
        watchdog: Some(half_a_minute),
    };
    assert_eq!(built_in.server, server);
    let nbd = Nbd {
        default: 0,
        max_connections: 1024,
        handshake_timeout: Duration::from_secs(10),
        listen: vec![Listen::Unix("/state/blkmq/nbd.sock".into())],
        tls: None,
    };
    assert_eq!(built_in.nbd, nbd);
    assert_eq!(built_in.control, Path::new("/state/blkmq/control.sock"));
}

/// Every key, each with a value that is not its default.
const EVERY_KEY: &str = r#"
        [disk.fast]
        driver = "null"
        size = 1048576
        logical_block_size = 4096
        scheduler = "none"
        nr_requests = 64
        queue_depth = 8
        hw_queues = 2
        io_timeout = "0"

        [disk.slow]
        driver = "file"
        path = "slow.img"
        size = "2G"
        scheduler = "mq-deadline"
        [disk.slow.iosched]
        read_expire = "100ms"
        write_expire = "3s"
        writes_starved = 4
        fifo_batch = 1
        prio_aging_expire = "1m"
        front_merges = 0
        async_depth = 7

        [volume.b]
        disk = "slow"
        offset = "1G"
        size = "1M"
        weight = 1000
        prio_class = "idle"
        read_only = true
        group = "g"
        limits = { iops = 20000, bps = "200M", burst = "1s" }
        [volume.a]
        disk = "fast"
        limits = "write_iops=5"
        [group.g]
        limits.read_bps = 4096

        [server]
        memory_limit = "1G"
        stop_timeout = "5s"
        watchdog = "0"
        [control]
        socket = "c.sock"
        [export.nbd]
        default = "a"
        max_connections = 7
        handshake_timeout = "1s"
        listen = ["unix:n.sock", "tcp:127.0.0.1:10809", "tcp:[::1]:0", "tcp:[::1]:0"]
        "#;

#[test]
fn every_key_is_read() {
    let config = good(EVERY_KEY);
    let [fast, slow] = &config.disks[..] else { panic!("two disks") };
    assert_eq!((fast.size_bytes, fast.nr_requests, fast.queue_depth), (1 << 20, 64, Some(8)));
    assert_eq!(
        (&fast.driver, &fast.scheduler, fast.hw_queues),
        (&Driver::Null, &Scheduler::None, 2)
    );
    assert_eq!((fast.logical_block_bytes, slow.logical_block_bytes), (Some(4096), None));
    assert_eq!(slow.driver, Driver::File { path: "/etc/blkmq/slow.img".into() });
    let deadline = DeadlineConfig {
        read_expire: Duration::from_millis(100),
        write_expire: Duration::from_secs(3),
        writes_starved: 4,
        fifo_batch: 1,
        prio_aging_expire: Duration::from_secs(60),
        front_merges: false,
        async_depth: Some(7),
    };
    assert_eq!(slow.scheduler, Scheduler::MqDeadline(deadline));
    let b = Volume {
        name: "b".into(),
        disk: 1,
        offset_bytes: 1 << 30,
        size_bytes: 1 << 20,
        weight: 1000,
        prio_class: Class::Idle,
        read_only: true,
        limits: limits("iops=20000,bps=200M,burst=1s"),
        group: Some(0),
    };
    assert_eq!(config.volumes[0], b);
    assert_eq!(config.volumes[1].limits, limits("write_iops=5"));
    let group = Group { name: "g".into(), limits: limits("read_bps=4k"), disk: Some(1) };
    assert_eq!(config.groups, [group]);
    assert_eq!((fast.io_timeout, config.server.watchdog), (None, None));
    assert_eq!(config.control, Path::new("/etc/blkmq/c.sock"));
    assert_eq!((config.volumes[1].size_bytes, config.nbd.default), (1 << 20, 1));
    assert_eq!(config.server.memory_limit_bytes, 1 << 30);
    assert_eq!(config.nbd.listen[0], Listen::Unix("/etc/blkmq/n.sock".into()));
    assert_eq!(config.nbd.listen[2], Listen::Tcp("[::1]:0".parse().unwrap()));
}

#[test]
fn a_model_is_described_in_a_word_or_a_table() {
    let disk = "[disk.d]\ndriver = 'model'\nsize = '1M'\n";
    let table = "[disk.d.model]\nslots = 8\nread = '100us'\nstore = false\nerror = '0.1%'\n";
    let model = good(&format!("{disk}{table}")).disks.remove(0).driver;
    let word = format!("{disk}model = 'slots=8,read=100us,store=false,error=0.1%'");
    assert_eq!(good(&word).disks[0].driver, model);
    let Driver::Model(spec) = &model else { panic!("{model:?} is no model") };
    assert!(spec.to_string().starts_with("slots=8,read=100us,write=0,"), "{spec}");
    let config = good(&word);
    assert_eq!(good(&config.to_string()), config);
    assert_eq!(good(disk).disks[0].driver, Driver::Model(ModelSpec::default()));
}

#[test]
fn what_is_printed_reads_back_the_same() {
    for text in ["", EVERY_KEY, "[disk.'a.b']\ndriver = 'null'\n[server]\nstop_timeout = '1500us'"]
    {
        let config = good(text);
        let printed = config.to_string();
        assert_eq!(good(&printed), config, "{printed}");
    }
}

#[test]
fn volumes_have_defaults_that_fill_the_disk() {
    let config = good(&format!("{TWO_VOLUMES}[volume.a]\nsize = '1M'\n[volume.b]\n"));
    assert_eq!(config.volumes[1].offset_bytes, 1 << 20);
    assert_eq!(config.volumes[1].end_bytes(), 1 << 30);
    let whole = good(TWO_VOLUMES).volumes;
    assert_eq!((whole[0].name.as_str(), whole[0].end_bytes()), ("d", 1 << 30));
}

#[test]
fn a_file_that_exists_brings_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.img");
    std::fs::write(&path, vec![0; 5000]).unwrap();
    let config = good(&format!("[disk.d]\npath = '{}'\n", path.display()));
    assert_eq!(config.disks[0].size_bytes, 4608, "whole sectors of it");
}

/// What is wrong with a document, and the exact words it is refused with.
const REFUSALS: &[(&str, &str)] = &[
    (
        "[disk.d]\ndriver = 'null'\nquue_depth = 3",
        "t.toml:3:1: unknown key `quue_depth` in [disk.d]\n  mend: did you mean `queue_depth`?",
    ),
    ("[dsik.d]", "t.toml:1:2: unknown key `dsik` at the top\n  mend: did you mean `disk`?"),
    (
        "[server]\ncolour = 1",
        "t.toml:2:1: unknown key `colour` in [server]\n  \
         mend: right are: memory_limit, stop_timeout, watchdog",
    ),
    (
        "[disk.d]\ndriver = 'memroy'",
        "t.toml:2:10: there is no driver `memroy`\n  \
         mend: did you mean `memory`? (right are: null, memory, file, model)",
    ),
    (
        "[disk.d]\ndriver = 'rbd'",
        "t.toml:2:10: driver `rbd` is not there yet\n  mend: this version has: null, memory, file, \
         model",
    ),
    (
        "[disk.d]\ndriver = 'null'\nscheduler = 'bfq'",
        "t.toml:3:13: scheduler `bfq` is not there yet\n  \
         mend: this version has: none, mq-deadline",
    ),
    (
        "[disk.d]\ndriver = 'null'\nscheduler = 'noop'",
        "t.toml:3:13: there is no scheduler `noop`\n  mend: right are: none, mq-deadline",
    ),
    (
        "[disk.d]\ndriver = 'null'\npath = '/x'",
        "t.toml:3:1: driver `null` has no `path`\n  \
         mend: remove the path, or write driver = \"file\"",
    ),
    (
        "[disk.d]\nmodel = 'slots'",
        "t.toml:2:1: driver `file` has no `model`\n  \
         mend: remove the model, or write driver = \"model\"",
    ),
    (
        "[disk.d]\ndriver = 'model'",
        "t.toml:1:7: disk `d` is a model and has no size\n  \
         mend: add its size, as in size = \"1G\"",
    ),
    (
        "[disk.d]\ndriver = 'model'\nsize = '1M'\nmodel = 'hdd'",
        "t.toml:4:9: `disk.d.model`: there is no model `hdd`\n  \
         mend: the only right word here is `slots`",
    ),
    (
        "[disk.d]\ndriver = 'model'\nsize = '1M'\n[disk.d.model]\nraed = '1ms'",
        "t.toml:5:1: model `slots` has no key `raed`\n  mend: did you mean `read`?",
    ),
    (
        "[disk.d]\ndriver = 'model'\nsize = '1M'\n[disk.d.model]\nread = 5",
        "t.toml:5:8: `disk.d.model.read`: `5` has no unit of time\n  \
         mend: write the unit too, as in \"5ms\" or \"5s\"",
    ),
    (
        "[disk.d]\ndriver = 'model'\nsize = '1M'\nmodel.read = [5]",
        "t.toml:4:14: `disk.d.model.read` is a single value, not a list\n  \
         mend: put it in quotes, as in \"...\"",
    ),
    (
        "[disk.d]\ndriver = 3",
        "t.toml:2:10: `disk.d.driver` is a text, not a whole number\n  \
         mend: put it in quotes, as in \"...\"",
    ),
    (
        "[disk.d]\ndriver = 'null'\nsize = '1Q'",
        "t.toml:3:8: `disk.d.size`: `1Q` is not a size\n  \
         mend: write a whole number of bytes, or one with k, M, G or T, as in \"512M\"",
    ),
    (
        "[disk.d]\ndriver = 'null'\nsize = 0",
        "t.toml:3:8: `disk.d.size` is 0\n  mend: write a size above 0, as in \"512M\"",
    ),
    (
        "[disk.d]\ndriver = 'null'\nsize = 1000",
        "t.toml:3:8: `disk.d.size` is 1000 bytes, no multiple of 512\n  mend: write 512 or 1024",
    ),
    (
        "[disk.d]\ndriver = 'null'\nlogical_block_size = 3000",
        "t.toml:3:22: `disk.d.logical_block_size` is 3000, no power of two\n  \
         mend: write 2048 or 4096",
    ),
    (
        "[disk.d]\ndriver = 'null'\nlogical_block_size = 131072",
        "t.toml:3:22: `disk.d.logical_block_size` is 131072, out of range\n  \
         mend: write a number from 512 to 65536",
    ),
    (
        "[disk.d]\ndriver = 'null'\nnr_requests = 3",
        "t.toml:3:15: `disk.d.nr_requests` is 3, out of range\n  \
         mend: write a number from 4 to 10240",
    ),
    (
        "[disk.d]\ndriver = 'null'\nqueue_depth = -1",
        "t.toml:3:15: `disk.d.queue_depth` is -1, out of range\n  \
         mend: write a number from 1 to 10240",
    ),
    (
        "[disk.d]\ndriver = 'null'\nhw_queues = '2'",
        "t.toml:3:13: `disk.d.hw_queues` is a whole number, not a text\n  \
         mend: write a whole number, without quotes",
    ),
    (
        "[disk.d]\ndriver = 'null'\n[disk.d.iosched]\nread_expire = 500",
        "t.toml:4:15: `disk.d.iosched.read_expire`: `500` has no unit of time\n  \
         mend: write the unit too, as in \"500ms\" or \"500s\"",
    ),
    (
        "[disk.d]\ndriver = 'null'\n[disk.d.iosched]\nfront_merges = 2",
        "t.toml:4:16: `disk.d.iosched.front_merges` is 2, out of range\n  \
         mend: write a number from 0 to 1",
    ),
    (
        "[disk.d]\ndriver = 'null'\niosched.slice_idle = '8ms'",
        "t.toml:3:9: `slice_idle` is no attribute of scheduler `mq-deadline`\n  \
         mend: right are: read_expire, write_expire, writes_starved, fifo_batch, front_merges, \
         prio_aging_expire, async_depth",
    ),
    (
        "[disk.d]\ndriver = 'null'\niosched.read_expires = '8ms'",
        "t.toml:3:9: there is no attribute `read_expires`\n  mend: did you mean `read_expire`?",
    ),
    (
        "[disk.d]\ndriver = 'null'\nscheduler = 'none'\niosched.fifo_batch = 3",
        "t.toml:4:9: scheduler `none` has no attribute `fifo_batch`\n  \
         mend: remove it, or write scheduler = \"mq-deadline\"",
    ),
    (
        "[disk]\nmain = 3",
        "t.toml:2:8: `disk.main` is a table, not a whole number\n  \
         mend: write a table, [disk.main]",
    ),
    ("[disk]", "t.toml:1:2: [disk] names no disk\n  mend: write [disk.NAME], or leave [disk] out"),
    (
        "[disk.\"a b\"]\ndriver = 'null'",
        "t.toml:1:7: `a b` is no name for a disk\n  \
         mend: use 1 to 64 letters, digits, dots, dashes and underscores",
    ),
    (
        "[disk.a]\npath = 'x'\n[disk.b]\npath = 'x'",
        "t.toml:4:8: disks `a` and `b` are the same file\n  \
         mend: give each its own path, or put two volumes on one disk",
    ),
    (
        "[volume.v]\ndisk = 'mian'",
        "t.toml:2:8: there is no disk `mian`\n  mend: did you mean `main`? (right are: main)",
    ),
    (
        "[disk.a]\ndriver = 'null'\n[disk.b]\ndriver = 'null'\n[volume.v]\n",
        "t.toml:5:9: volume `v` does not say which disk it is on\n  \
         mend: add disk = \"...\"; right are: a, b",
    ),
    (
        "[volume.v]\noffset = '1G'",
        "t.toml:1:9: there is no room for volume `v` on disk `main`\n  \
         mend: make the disk larger, or the volumes before it smaller",
    ),
    (
        "[volume.v]\noffset = '1G'\nsize = '1M'",
        "t.toml:2:10: volume `v` begins at 1G, past the end of disk `main` (1G)\n  \
         mend: let it begin before the end, or make the disk larger",
    ),
    (
        "[volume.v]\noffset = '1000M'\nsize = '1G'",
        "t.toml:3:8: volume `v` ends at 2024M, past the end of disk `main` (1G)\n  \
         mend: make it at most 24M long, or make the disk larger",
    ),
    (
        "[volume.v]\nsize = '10M'\n[volume.w]\noffset = '9M'\nsize = '1M'",
        "t.toml:4:10: volume `w` (9M to 10M) overlaps volume `v` (0 to 10M) on disk `main`\n  \
         mend: let it begin at 10M or later",
    ),
    (
        "[volume.v]\nweight = 1001",
        "t.toml:2:10: `volume.v.weight` is 1001, out of range\n  \
         mend: write a number from 1 to 1000",
    ),
    (
        "[volume.v]\nprio_class = 'best_effort'",
        "t.toml:2:14: there is no class `best_effort`\n  \
         mend: did you mean `best-effort`? (right are: realtime, best-effort, idle)",
    ),
    (
        "[volume.v]\nread_only = 1",
        "t.toml:2:13: `volume.v.read_only` is true or false, not a whole number\n  \
         mend: write true or false, without quotes",
    ),
    (
        "[volume.v]\nlimits = { iop = 3 }",
        "t.toml:2:12: there is no limit `iop`\n  mend: did you mean `iops`?",
    ),
    (
        "[volume.v]\nlimits = { iops = 0 }",
        "t.toml:2:19: `volume.v.limits.iops`: `0` is no value for `iops`\n  \
         mend: write a number of I/Os or bytes a second, as in 20000 or 200M",
    ),
    (
        "[volume.v]\nlimits = { burst = '1x' }",
        "t.toml:2:20: `volume.v.limits.burst`: `1x` is no value for `burst`\n  \
         mend: write a time, as in 500ms or 1s",
    ),
    (
        "[volume.v]\nlimits = 5",
        "t.toml:2:10: `volume.v.limits` is a text, not a whole number\n  \
         mend: put it in quotes, as in \"...\"",
    ),
    (
        "[volume.v]\nlimits = 'iops'",
        "t.toml:2:10: `volume.v.limits`: `iops` says no value\n  \
         mend: write KEY=VALUE, as in iops=20000,bps=200M,burst=1s",
    ),
    (
        "[volume.v]\ngroup = 'g'",
        "t.toml:2:9: there is no group `g`\n  \
         mend: add [group.g] with its limits, or leave the group out",
    ),
    (
        "[group.web]\n[volume.v]\ngroup = 'wbe'",
        "t.toml:1:8: no volume is of group `web`\n  \
         mend: write group = \"web\" at its volumes, or remove it\n\
         t.toml:3:9: there is no group `wbe`\n  mend: did you mean `web`? (right are: web)",
    ),
    (
        "[disk.a]\ndriver = 'null'\n[disk.b]\ndriver = 'null'\n[group.g]\n\
         [volume.v]\ndisk = 'a'\ngroup = 'g'\n[volume.w]\ndisk = 'b'\ngroup = 'g'",
        "t.toml:11:9: group `g` is on disk `a`, and this volume on disk `b`\n  \
         mend: make a group for each disk: limits are held to by the disk's queue",
    ),
    (
        "[group.g]\nlimit = {}\n[volume.v]\ngroup = 'g'",
        "t.toml:2:1: unknown key `limit` in [group.g]\n  mend: did you mean `limits`?",
    ),
    (
        "[disk.d]\ndriver = 'null'\nio_timeout = 30",
        "t.toml:3:14: `disk.d.io_timeout`: `30` has no unit of time\n  \
         mend: write the unit too, as in \"30ms\" or \"30s\"",
    ),
    (
        "[server]\nwatchdog = 'soon'",
        "t.toml:2:12: `server.watchdog`: `soon` is not a time\n  \
         mend: write a whole number with us, ms, s, m or h, as in \"500ms\"",
    ),
    (
        "[control]\nsocket = ''",
        "t.toml:2:10: `control.socket` has no path\n  \
         mend: write the path of the socket, as in \"/run/blkmq/control.sock\"",
    ),
    (
        "[control]\npath = '/x'",
        "t.toml:2:1: unknown key `path` in [control]\n  mend: the only right word here is `socket`",
    ),
    (
        "[export.nbd]\ntls = { key = 'k.pem' }",
        "t.toml:2:1: TLS needs a certificate and its key, and there is no `cert`\n  \
         mend: add cert = \"/path/to/cert.pem\"",
    ),
    (
        "[export.nbd]\ntls = { cert = 'c.pem', key = '' }",
        "t.toml:2:31: `export.nbd.tls.key` has no path\n  \
         mend: write the path of a PEM file, as in \"key.pem\"",
    ),
    (
        "[export.nbd]\ntls = { cert = 'c.pem', key = 'k.pem', mode = 'require' }",
        "t.toml:2:47: there is no mode `require`\n  \
         mend: did you mean `required`? (right are: required, optional)",
    ),
    (
        "[export.nbd]\ntls = { cert = 'c.pem', key = 'k.pem', ca = 'ca.pem' }",
        "t.toml:2:16: /etc/blkmq/c.pem cannot be read: No such file or directory (os error 2)\n  \
         mend: create the file, or name another\n\
         t.toml:2:40: unknown key `ca` in [export.nbd.tls]\n  \
         mend: right are: cert, key, client_ca, mode",
    ),
    (
        "[export.nbd]\ndefault = 'silver'",
        "t.toml:2:11: there is no volume `silver`\n  mend: right are: gold, bronze",
    ),
    (
        "[export.nbd]\nlisten = []",
        "t.toml:2:10: `export.nbd.listen` is empty: nobody could connect\n  \
         mend: add an address, as in \"unix:/run/blkmq/nbd.sock\"",
    ),
    (
        "[export.nbd]\nlisten = ['unix:/a',\n 'unix:/b', 'unix:/a']",
        "t.toml:3:13: `unix:/a` is listed twice\n  mend: remove one of the two",
    ),
    (
        "[export.nbd]\nlisten = ['tcp:localhost']",
        "t.toml:2:11: `localhost` is no IP address with a port\n  \
         mend: write \"unix:PATH\", \"tcp:127.0.0.1:10809\" or \"tcp:[::1]:10809\"",
    ),
    (
        "[export.nbd]\nlisten = ['/run/x']",
        "t.toml:2:11: `/run/x` is no address to listen at\n  \
         mend: write \"unix:PATH\", \"tcp:127.0.0.1:10809\" or \"tcp:[::1]:10809\"",
    ),
    (
        "[export.nbd]\nlisten = 'unix:/x'",
        "t.toml:2:10: `export.nbd.listen` is a list, not a text\n  \
         mend: write a list of texts, as in [\"...\", \"...\"]",
    ),
    (
        "[export.nbd]\nlisten = ['unix:']",
        "t.toml:2:11: `unix:` has no path\n  \
         mend: write the path of the socket, as in \"unix:/run/blkmq/nbd.sock\"",
    ),
    (
        "[server]\nstop_timeout = '0s'",
        "t.toml:2:16: `server.stop_timeout` is 0\n  mend: write a time above 0, as in \"10s\"",
    ),
    (
        "[disk.d]\ndriver = 'null'\n[export.nbd]\nmax_connections = 9000",
        "t.toml:4:19: 9000 clients are too many for a `server.memory_limit` of 256M\n  \
         mend: write at most 8192, or raise memory_limit to 288000k",
    ),
    (
        "[server]\nmemory_limit = '1M'",
        "t.toml:2:16: `server.memory_limit` is too little for a server\n  \
         mend: write \"64M\" or more",
    ),
];

#[test]
fn every_refusal_names_the_place_and_the_mend() {
    for (text, words) in REFUSALS {
        assert_eq!(wrong(text), *words, "\n{text}");
    }
}

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    let told = wrong("[disk.d]\nsize = 1G\n");
    assert!(told.starts_with("t.toml:2:8: not TOML: "), "{told}");
    assert!(told.ends_with("as in size = \"1G\""), "{told}");
    let told = wrong("[disk.d]\n[disk.d]\n");
    assert!(told.starts_with("t.toml:2:7: not TOML: duplicate key"), "{told}");
}

#[test]
fn all_mistakes_are_told_at_once_and_in_order() {
    let told = wrong(
        "[export.nbd]\nlisten = 3\n[disk.d]\ndriver = 'x'\nsize = '1Q'\n[volume.v]\nweight=0",
    );
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("t.toml")).collect();
    let places: Vec<_> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["t.toml:2:10", "t.toml:4:10", "t.toml:5:8", "t.toml:7:8"]);
}

#[test]
fn a_socket_path_must_fit_its_address() {
    let long = "x".repeat(200);
    let told = wrong(&format!("[export.nbd]\nlisten = ['unix:/{long}']"));
    assert_eq!(
        told,
        "t.toml:2:11: the path of the socket has 201 bytes\n  \
         mend: choose one of at most 107 bytes"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let told = load(Path::new("/nonexistent/blkmq.toml")).unwrap_err().to_string();
    assert!(told.starts_with("/nonexistent/blkmq.toml: cannot be read: "), "{told}");
}
