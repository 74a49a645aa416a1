use std::fs;

use super::*;

fn pool(limit_bytes: usize, arena_bytes: usize, own_bytes: usize) -> BufferPool {
    BufferPool::new(PoolSize { limit_bytes, arena_bytes, own_bytes }).unwrap()
}

fn all(pool: &BufferPool, len_bytes: usize) -> Vec<Buffer> {
    std::iter::from_fn(|| pool.get(len_bytes)).collect()
}

#[test]
fn the_limit_holds_and_what_is_kept_is_reused() {
    let pool = pool(9 << 20, 1 << 20, 0);
    let big = all(&pool, 1 << 20);
    assert_eq!(big.len(), 4, "the short have half of what is beyond the arena");
    assert!(pool.get(128 << 10).is_none());
    drop(big);
    let small = all(&pool, 128 << 10);
    assert_eq!(small.len(), 32);
    drop(small);
    assert_eq!(all(&pool, 2 << 20).len(), 2, "kept pieces make room for long ones");
}

#[test]
fn one_share_does_not_take_from_another() {
    let pool = pool(14 << 20, 2 << 20, 4 << 20);
    let (long, short) = (all(&pool, 4 << 20), all(&pool, 4096));
    assert_eq!((long.len(), short.len()), (1, 1024));
    // What was promised is there whatever the others have taken, in any length.
    let own = [4096, 64 << 10, 1 << 20, 2 << 20].map(|len| pool.get_own(len).unwrap());
    assert!(own.iter().all(Buffer::is_own) && !short[0].is_own());
    drop(long);
    assert!(pool.get(4096).is_none(), "nor is what the long leave for the short");
    assert!(pool.get(2 << 20).is_some());
}

#[test]
fn the_longest_buffer_can_be_had() {
    for limit_bytes in [1 << 20, 5 << 20, 64 << 20, 200 << 20] {
        let own_bytes = limit_bytes / 8;
        let size = PoolSize { limit_bytes, arena_bytes: 256 << 10, own_bytes };
        let pool = BufferPool::new(size).unwrap();
        let short = all(&pool, 4096);
        let longest = size.buffer_max_bytes();
        drop(if longest > SHORT_MAX_BYTES { Vec::new() } else { short });
        assert!(pool.get(longest).is_some(), "{longest} of {limit_bytes}");
    }
}

#[test]
fn buffers_are_aligned_and_apart() {
    let pool = pool(2 << 20, 64 << 10, 0);
    // More of them than the arena holds.
    let mut buffers: Vec<Buffer> =
        [1, 4096, 4097, 9000, 60_000, 60_000].map(|len| pool.get(len).unwrap()).into();
    for (i, buffer) in buffers.iter_mut().enumerate() {
        assert_eq!(buffer.as_ptr() as usize % PAGE_BYTES, 0);
        buffer.fill(i as u8);
    }
    for (i, buffer) in buffers.iter().enumerate() {
        assert!(buffer.iter().all(|byte| *byte == i as u8));
    }
}

/// Many short buffers, all touched, and then as much in other lengths: the process never holds
/// more than the limit. With the allocator it held twice as much, since each page came with a page
/// for the allocator's own.
#[test]
fn the_process_holds_no_more_than_the_limit() {
    let (limit_bytes, arena_bytes) = (129 << 20, 1 << 20);
    let pool = pool(limit_bytes, arena_bytes, 0);
    let before = resident_bytes();
    for len_bytes in [4096, 8192, 128 << 10, 4096, 1 << 20] {
        let mut buffers = all(&pool, len_bytes);
        for buffer in &mut buffers {
            buffer.fill(1);
        }
        // One in eight stays, so that what is free lies scattered.
        let kept: Vec<Buffer> = buffers.into_iter().step_by(8).collect();
        let held = resident_bytes().saturating_sub(before);
        // Other tests of this process take some memory meanwhile, and AddressSanitizer an eighth as
        // much again as is touched.
        assert!(held < limit_bytes + (64 << 20), "{} MiB with {len_bytes}", held >> 20);
        drop(kept);
    }
}

/// What the kernel counts as the process's memory.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE_BYTES
}
