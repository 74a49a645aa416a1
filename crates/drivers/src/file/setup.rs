//! Making an io_uring, with the best of what the kernel offers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Once;

use io_uring::{IoUring, squeue, types};
use tracing::{info, warn};

use crate::device::Area;

/// The most entries that the kernel gives a ring.
const MAX_ENTRIES: u32 = 32_768;

/// Makes an io_uring that takes `depth` requests at once.
///
/// Completions are not deferred to the owner's next call (`IORING_SETUP_DEFER_TASKRUN`), although
/// that would batch them: the kernel then wakes nobody who sleeps on the ring's descriptor, and
/// with an eventfd in between it was no faster than this.
pub(super) fn make(depth: u32) -> io::Result<IoUring> {
    if depth == 0 || depth > MAX_ENTRIES {
        let message = format!("a ring takes 1 to {MAX_ENTRIES} requests at once, not {depth}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    // Linux 5.19: completions wait for the thread's next call, instead of interrupting it.
    let cooperative = IoUring::builder()
        .setup_submit_all()
        .setup_taskrun_flag()
        .setup_coop_taskrun()
        .build(depth);
    cooperative
        .or_else(|e| {
            fall_back("complete without interrupts (Linux 5.19 has it)", e)?;
            IoUring::builder().build(depth)
        })
        .map_err(explain)
}

/// Goes on with less if the kernel does not know what was asked for; the reason is logged once.
fn fall_back(ability: &str, error: io::Error) -> io::Result<()> {
    static SAID: Once = Once::new();
    if error.raw_os_error() != Some(libc::EINVAL) {
        return Err(error);
    }
    SAID.call_once(|| info!("this kernel's io_uring cannot {ability}"));
    Ok(())
}

fn explain(error: io::Error) -> io::Error {
    let mend = match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => {
            "allow io_uring here (sysctl kernel.io_uring_disabled=0, or the container's seccomp \
             profile)"
        }
        Some(libc::ENOMEM) => "raise RLIMIT_MEMLOCK (ulimit -l), or lower the depth",
        Some(libc::EMFILE | libc::ENFILE) => "raise RLIMIT_NOFILE (ulimit -n)",
        _ => "see that the kernel is Linux 5.10 or later",
    };
    io::Error::new(error.kind(), format!("cannot make an io_uring: {error}; {mend}"))
}

/// How entries name the file: by its place in the ring's table, which is cheaper, or by descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) fd: types::Fd,
    pub(super) flags: squeue::Flags,
}

/// Makes the file known to the ring.
pub(super) fn register_file(uring: &IoUring, fd: BorrowedFd<'_>) -> Target {
    static SAID: Once = Once::new();
    match uring.submitter().register_files(&[fd.as_raw_fd()]) {
        Ok(()) => Target { fd: types::Fd(0), flags: squeue::Flags::FIXED_FILE },
        Err(error) => {
            SAID.call_once(|| warn!(%error, "the file is not registered: requests cost more"));
            Target { fd: types::Fd(fd.as_raw_fd()), flags: squeue::Flags::empty() }
        }
    }
}

/// Makes memory known to the ring; answers whether it is.
pub(super) fn register_buffers(uring: &IoUring, areas: &[Area]) -> bool {
    static SAID: Once = Once::new();
    let vectors: Vec<libc::iovec> = areas
        .iter()
        .map(|area| libc::iovec { iov_base: area.addr().cast(), iov_len: area.len_bytes() })
        .collect();
    // SAFETY: whoever made the areas promised that they stay mapped for as long as the ring lives.
    match unsafe { uring.submitter().register_buffers(&vectors) } {
        Ok(()) => true,
        Err(error) => {
            let bytes: usize = areas.iter().map(Area::len_bytes).sum();
            SAID.call_once(|| {
                warn!(
                    %error, bytes,
                    "buffers are not registered: requests cost more; raise RLIMIT_MEMLOCK \
                     (ulimit -l) to have them registered"
                );
            });
            false
        }
    }
}
