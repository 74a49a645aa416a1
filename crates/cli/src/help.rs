//! What `--help` says beyond the options: as much as a manual page.

/// Of the program.
pub(crate) const PROGRAM: &str = "\
Exit status:
  0  done
  1  the thing asked for failed
  2  the call or the configuration is wrong; nothing was touched

Environment:
  BLKMQ_LOG       what is logged to standard error: error, warn, info, debug or trace, also by
                  module, as in warn,blkmq::server=info, which is what holds unless told otherwise
  XDG_STATE_HOME  where the built-in configuration keeps its disk and sockets, in a folder `blkmq`
                  [default: ~/.local/state]

Each command tells more by `blkmq COMMAND --help`.";

/// Of `blkmq serve`.
pub(crate) const SERVE: &str = "\
What it prints:
  Once clients can connect, one line an export and address on standard output, as in
  `ready nbd+unix:///gold?socket=/run/blkmq/nbd.sock`, and nothing else there.

Signals:
  SIGTERM, SIGINT  stop: nobody new is let in, what was accepted is completed, all disks are
                   flushed; exit status 0. It ends within server.stop_timeout even if a device does
                   not answer, then with exit status 1. A second one ends it at once
  SIGHUP           read the configuration again and apply it, all of it or nothing. The log lists
                   the keys that need a restart, if any of them has changed; nothing is applied then

Configuration:
  A TOML file, every key of which has a default. `--print-config` shows them all, `--check-config`
  says whether a file is right. Sizes and times are written as people write them: \"1G\", \"30s\".

  [disk.NAME]     a scheduling domain: one device, one queue
    driver              null, memory, file or model
    path                the file or block device; created if missing, and locked while it is served
    size                a multiple of 512
    logical_block_size  what requests to the device are made of
    scheduler           none or mq-deadline                                            (live)
    iosched.ATTRIBUTE   the scheduler's attributes, by their sysfs names               (live)
    nr_requests         how many requests the queue holds                              (live)
    queue_depth         the device's budget, shared by all hardware queues
    hw_queues           how many there are                  (live, up to the most at the start)
    io_timeout          after how long the driver is asked about a request; 0: never   (live)
  [volume.NAME]   an address space on a disk, owned by a tenant
    disk, offset, size  where it lies
    weight              1 to 1000                                                      (live)
    prio_class          realtime, best-effort or idle
    read_only           whether writes are refused
    limits              iops, read_iops, write_iops, bps, read_bps, write_bps, burst   (live)
    group               whose limits it shares
  [group.NAME]    what volumes share
    limits              as above                                                       (live)
  [server]
    memory_limit        the buffers of all connections; half of it is promised to the
                        connections, in equal parts, whatever the others hold. A client that takes
                        no replies for a second while others wait for memory, or sends a payload by
                        less than a megabyte a second, is disconnected
    stop_timeout        how long a stop may take                                       (live)
    watchdog            after how long a request is reported that nobody holds         (live)
  [export.nbd]
    default             the volume that the empty export name means
    listen              unix:PATH or tcp:ADDRESS:PORT, in a list; a socket's mode is 0600
    max_connections     how many clients there may be; those beyond are turned away
    handshake_timeout   how long a handshake may take, and half a request
  [control]
    socket              where `blkmq ctl` connects; its mode is 0600

  What is marked (live) changes by SIGHUP and by `blkmq ctl set`.

Service managers:
  Readiness, reloads and stops are told by sd_notify(3). Sockets that are handed over
  (sd_listen_fds(3)) take the place of export.nbd.listen; one of the name `control` is for
  `blkmq ctl`.

Examples:
  blkmq serve                                           the built-in configuration
  blkmq serve --print-config > blkmq.toml               a file to begin with
  blkmq serve --config blkmq.toml
  qemu-img info 'nbd+unix:///gold?socket=nbd.sock'      a client";
