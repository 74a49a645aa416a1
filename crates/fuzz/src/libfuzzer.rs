//! A target as libFuzzer's.

use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

static BODY: OnceLock<fn(&[u8])> = OnceLock::new();

// This also ends the process when any thread panics, which is how libFuzzer learns of it.
libfuzzer_sys::fuzz_target!(|input: &[u8]| (BODY.get().expect("set before it began"))(input));

unsafe extern "C" {
    /// LLVM's own: runs `one` until it fails or the arguments say that it is enough.
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        one: unsafe extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;

    /// What `fuzz_target` made.
    fn LLVMFuzzerTestOneInput(data: *const u8, len: usize) -> c_int;
}

/// libFuzzer's arguments, if this process is to fuzz: what follows `--` in the call. The first
/// stands for the program, as ever; libFuzzer calls itself anew with it.
pub(crate) fn arguments() -> Option<Vec<String>> {
    let mut own: Vec<String> = std::env::args().collect();
    let end = own.iter().position(|argument| argument == "--")?;
    let rest = own.split_off(end + 1);
    Some(std::iter::once(own.join(" ")).chain(rest).collect())
}

/// Runs libFuzzer, and ends the process when it has ended.
pub(crate) fn run(arguments: Vec<String>, body: fn(&[u8])) {
    BODY.set(body).expect("one target is run a process");
    let pointers = arguments.into_iter().map(|argument| {
        // libFuzzer may change them, and keeps them to its end, which is the process's.
        CString::new(argument).expect("an argument has no NUL").into_raw()
    });
    let mut pointers: Vec<*mut c_char> = pointers.collect();
    let mut argc = c_int::try_from(pointers.len()).expect("these are a few");
    pointers.push(std::ptr::null_mut());
    let mut argv = pointers.as_mut_ptr();
    // SAFETY: both point to what lives until the process ends, and `argv` has `argc` strings and a
    // null pointer behind them, as a program's own has.
    let status = unsafe { LLVMFuzzerRunDriver(&mut argc, &mut argv, LLVMFuzzerTestOneInput) };
    std::process::exit(status);
}
