//! What the operating system charges the calling thread with.

use std::mem::MaybeUninit;
use std::time::Duration;

use crate::stats::Usage;

/// What the calling thread has used since it began.
pub(super) fn of_this_thread() -> Usage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole `rusage`, which is what the call fills.
    let code = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    assert_eq!(code, 0, "a thread may always ask for its own usage");
    // SAFETY: all zeroes are a valid `rusage`, and the call has filled it besides.
    let usage = unsafe { usage.assume_init() };
    let count = |count: libc::c_long| u64::try_from(count).unwrap_or(0);
    let time = |time: libc::timeval| {
        Duration::from_secs(count(time.tv_sec)) + Duration::from_micros(count(time.tv_usec))
    };
    Usage {
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        switches: count(usage.ru_nvcsw) + count(usage.ru_nivcsw),
        major_faults: count(usage.ru_majflt),
        minor_faults: count(usage.ru_minflt),
    }
}
