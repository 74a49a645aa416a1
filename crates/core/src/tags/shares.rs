//! Fair shares: how many of the shared tags of one hardware queue each user may have.

use crate::sync::{AcqRel, AtomicU64, Relaxed};

/// A user may have so many in any case, as in Linux: a device that works alone for a moment must
/// not be throttled to nothing by many that hardly work.
const SHARE_MIN: u32 = 4;

/// Kicks are given for batches of at most so many tags, while an earlier kick is under way.
const WAKE_BATCH_MAX: u32 = 8;

/// How many users are active, and what follows from it. All in one word, so that nobody sees the
/// number of one moment with the share of another (Linux's follow-ups to commit 180dccb0dba4).
#[derive(Debug)]
pub(super) struct Shares {
    depth: u32,
    packed: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The active users.
    pub(super) users: u16,
    /// How many tags a user may have.
    pub(super) most: u32,
    /// How many tags are worth a kick while an earlier one is under way.
    pub(super) wake_batch: u32,
}

impl Shares {
    pub(super) fn new(depth: u32) -> Self {
        Shares { depth, packed: AtomicU64::new(Share::of(depth, 0).pack()) }
    }

    /// As it is now.
    #[inline]
    pub(super) fn load(&self) -> Share {
        Share::unpack(self.packed.load(Relaxed))
    }

    /// A user has become active.
    pub(super) fn add_user(&self) {
        self.change(|users| users.checked_add(1).expect("users are numbered in u16"));
    }

    /// A user is idle. The share of the others has grown, so the caller owes a full fence and a
    /// look at who waits (T2).
    pub(super) fn remove_user(&self) {
        self.change(|users| users.checked_sub(1).expect("who is idle was active"));
    }

    fn change(&self, change: impl Fn(u16) -> u16) {
        let mut packed = self.packed.load(Relaxed);
        loop {
            let next = Share::of(self.depth, change(Share::unpack(packed).users)).pack();
            match self.packed.compare_exchange(packed, next, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => packed = now,
            }
        }
    }
}

impl Share {
    fn of(depth: u32, users: u16) -> Share {
        let divisor = u32::from(users.max(1));
        Share {
            users,
            // Who is alone may have all, and of one tag there is no part.
            most: if users <= 1 || depth == 1 {
                u32::MAX
            } else {
                depth.div_ceil(divisor).max(SHARE_MIN)
            },
            wake_batch: (depth / divisor / 8).clamp(1, WAKE_BATCH_MAX),
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.most) << 32 | u64::from(self.wake_batch) << 16 | u64::from(self.users)
    }

    #[inline]
    fn unpack(packed: u64) -> Share {
        Share {
            users: packed as u16,
            most: (packed >> 32) as u32,
            wake_batch: u32::from((packed >> 16) as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_linux() {
        let share = |depth, users| {
            let shares = Shares::new(depth);
            (0..users).for_each(|_| shares.add_user());
            let share = shares.load();
            assert_eq!(share.users, users);
            (share.most, share.wake_batch)
        };
        assert_eq!(share(256, 0), (u32::MAX, 8));
        assert_eq!(share(256, 1), (u32::MAX, 8));
        assert_eq!(share(256, 3), (86, 8));
        assert_eq!(share(64, 4), (16, 2));
        assert_eq!(share(64, 32), (4, 1));
        assert_eq!(share(1, 5), (u32::MAX, 1));
        assert_eq!(share(2, 2), (4, 1));
        let shares = Shares::new(64);
        shares.add_user();
        shares.add_user();
        shares.remove_user();
        assert_eq!(shares.load(), Share { users: 1, most: u32::MAX, wake_batch: 8 });
    }
}
