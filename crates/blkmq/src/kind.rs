//! The kinds of I/O: what each owns, lends, and answers.

use blkmq_core::{Op, Segment, Segments};

use crate::error::Error;
use crate::memory::{IoBuf, IoBufMut};

/// The layer is told of memory in pieces of at most this length, whose lengths fit a `u32`.
const PIECE_MAX_BYTES: usize = 1 << 30;

/// A kind of I/O, with the memory that it owns until it has ended.
pub trait Kind: sealed::Kind {
    /// What it answers: how it ended, and the memory, which is the caller's again.
    type Output;

    #[doc(hidden)]
    fn answer(self, result: Result<(), Error>) -> Self::Output;
}

/// A kind of I/O that can be made durable before it ends.
pub trait Durable: Kind {}

pub(crate) mod sealed {
    use super::{Op, Segments};

    /// What the crate needs to know of a kind.
    pub trait Kind: Send + 'static {
        /// The operation.
        const OP: Op;
        /// What people call it.
        const NAME: &'static str;

        /// How long it is, in bytes.
        fn len_bytes(&self) -> u64;

        /// Lends its memory.
        ///
        /// # Safety
        ///
        /// Until the request has come back, the kind must neither be moved, dropped nor touched.
        unsafe fn lend(&mut self, into: &mut Segments) {
            let _ = into;
        }
    }
}

/// Reads into one buffer.
#[derive(Debug)]
pub struct Read<B>(pub(crate) B);

/// Reads into several buffers, one after the other.
#[derive(Debug)]
pub struct ReadVectored<B>(pub(crate) Vec<B>);

/// Writes from one buffer.
#[derive(Debug)]
pub struct Write<B>(pub(crate) B);

/// Writes from several buffers, one after the other.
#[derive(Debug)]
pub struct WriteVectored<B>(pub(crate) Vec<B>);

/// Makes a range read as zeroes.
#[derive(Debug)]
pub struct WriteZeroes(pub(crate) u64);

/// Says that the contents of a range are no longer needed.
#[derive(Debug)]
pub struct Discard(pub(crate) u64);

/// Makes durable what was written.
#[derive(Debug)]
pub struct Flush;

impl<B: IoBufMut> sealed::Kind for Read<B> {
    const OP: Op = Op::Read;
    const NAME: &'static str = "read";

    fn len_bytes(&self) -> u64 {
        self.0.len_bytes() as u64
    }

    unsafe fn lend(&mut self, into: &mut Segments) {
        // SAFETY: the caller promises it.
        unsafe { lend_to_fill(&mut self.0, into) };
    }
}

impl<B: IoBufMut> sealed::Kind for ReadVectored<B> {
    const OP: Op = Op::Read;
    const NAME: &'static str = "read";

    fn len_bytes(&self) -> u64 {
        sum_bytes(&self.0)
    }

    unsafe fn lend(&mut self, into: &mut Segments) {
        for buffer in &mut self.0 {
            // SAFETY: the caller promises it.
            unsafe { lend_to_fill(buffer, into) };
        }
    }
}

impl<B: IoBuf> sealed::Kind for Write<B> {
    const OP: Op = Op::Write;
    const NAME: &'static str = "write";

    fn len_bytes(&self) -> u64 {
        self.0.len_bytes() as u64
    }

    unsafe fn lend(&mut self, into: &mut Segments) {
        // SAFETY: the caller promises it.
        unsafe { lend_to_look_at(&self.0, into) };
    }
}

impl<B: IoBuf> sealed::Kind for WriteVectored<B> {
    const OP: Op = Op::Write;
    const NAME: &'static str = "write";

    fn len_bytes(&self) -> u64 {
        sum_bytes(&self.0)
    }

    unsafe fn lend(&mut self, into: &mut Segments) {
        for buffer in &self.0 {
            // SAFETY: the caller promises it.
            unsafe { lend_to_look_at(buffer, into) };
        }
    }
}

impl sealed::Kind for WriteZeroes {
    const OP: Op = Op::WriteZeroes;
    const NAME: &'static str = "write-zeroes";

    fn len_bytes(&self) -> u64 {
        self.0
    }
}

impl sealed::Kind for Discard {
    const OP: Op = Op::Discard;
    const NAME: &'static str = "discard";

    fn len_bytes(&self) -> u64 {
        self.0
    }
}

impl sealed::Kind for Flush {
    const OP: Op = Op::Flush;
    const NAME: &'static str = "flush";

    fn len_bytes(&self) -> u64 {
        0
    }
}

/// What kinds with memory answer: how they ended, and the memory.
macro_rules! answers_memory {
    ($kind:ident, $buf:ident, $memory:ty) => {
        impl<B: $buf> Kind for $kind<B> {
            type Output = (Result<(), Error>, $memory);

            fn answer(self, result: Result<(), Error>) -> Self::Output {
                (result, self.0)
            }
        }
    };
}

answers_memory!(Read, IoBufMut, B);
answers_memory!(ReadVectored, IoBufMut, Vec<B>);
answers_memory!(Write, IoBuf, B);
answers_memory!(WriteVectored, IoBuf, Vec<B>);

/// What kinds without memory answer: how they ended.
macro_rules! answers_result {
    ($kind:ident) => {
        impl Kind for $kind {
            type Output = Result<(), Error>;

            fn answer(self, result: Result<(), Error>) -> Self::Output {
                result
            }
        }
    };
}

answers_result!(WriteZeroes);
answers_result!(Discard);
answers_result!(Flush);

impl<B: IoBuf> Durable for Write<B> {}
impl<B: IoBuf> Durable for WriteVectored<B> {}
impl Durable for WriteZeroes {}

/// # Safety
///
/// As for [`sealed::Kind::lend`].
unsafe fn lend_to_fill<B: IoBufMut>(buffer: &mut B, into: &mut Segments) {
    let addr = buffer.addr_mut();
    // SAFETY: the caller promises it.
    unsafe { lend(addr, buffer.len_bytes(), into) };
}

/// # Safety
///
/// As for [`sealed::Kind::lend`]; and the request may only read.
unsafe fn lend_to_look_at<B: IoBuf>(buffer: &B, into: &mut Segments) {
    // SAFETY: the caller promises it.
    unsafe { lend(buffer.addr().cast_mut(), buffer.len_bytes(), into) };
}

/// # Safety
///
/// The memory stays valid and untouched until the request has come back.
unsafe fn lend(addr: *mut u8, len_bytes: usize, into: &mut Segments) {
    for start in (0..len_bytes).step_by(PIECE_MAX_BYTES) {
        let piece_bytes = PIECE_MAX_BYTES.min(len_bytes - start) as u32;
        // SAFETY: the caller promises it of the whole, and the piece lies within.
        into.push(unsafe { Segment::new(addr.add(start), piece_bytes, None) });
    }
}

fn sum_bytes<B: IoBuf>(buffers: &[B]) -> u64 {
    buffers.iter().fold(0, |sum, buffer| sum.saturating_add(buffer.len_bytes() as u64))
}
