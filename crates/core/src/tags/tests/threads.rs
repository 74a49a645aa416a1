//! Threads at one tag set. Each has so much to do, and sleeps while it has no tag; a wake-up that
//! is lost leaves one asleep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::ids::HctxId;
use crate::tags::{TagKick, TagKind, TagRun, TagSet, TagUser};

const H: HctxId = HctxId(0);

/// Much longer than anything here takes.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A user of the set, and where it is kicked.
struct Client {
    user: TagUser,
    /// How often it was kicked. Each of its threads looks again after each kick, as in the layer
    /// the run of a hardware queue is for all that is published there.
    kicks: Mutex<u64>,
    changed: Condvar,
}

struct Stress {
    clients: Vec<Client>,
    nr_threads: usize,
    finished: AtomicUsize,
    /// A thread has failed; the others have nothing more to wait for.
    failed: AtomicBool,
}

impl Stress {
    fn kick(&self, kick: TagKick) {
        let client = &self.clients[kick.user as usize];
        *client.kicks.lock().unwrap() += 1;
        client.changed.notify_all();
    }

    fn settle(&self, client: &Client) {
        client.user.settle(H, |kick| self.kick(kick));
    }

    /// Sleeps until `client` has been kicked more often than `seen`, or all threads have finished.
    fn sleep(&self, client: &Client, seen: &mut u64, may_end: bool) -> bool {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut kicks = client.kicks.lock().unwrap();
        loop {
            if *kicks > *seen {
                *seen = *kicks;
                return true;
            }
            if may_end && self.finished.load(Ordering::SeqCst) == self.nr_threads {
                return false;
            }
            assert!(!self.failed.load(Ordering::SeqCst), "another thread has failed");
            if Instant::now() > deadline {
                self.failed.store(true, Ordering::SeqCst);
                panic!("nobody wakes this thread: {:?}", client.user.set());
            }
            kicks = client.changed.wait_timeout(kicks, Duration::from_millis(100)).unwrap().0;
        }
    }

    fn thread(&self, number: usize, nr_requests: u32) {
        let client = &self.clients[number % self.clients.len()];
        let mut random = number as u64 * 0x9E37_79B9 + 1;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let (mut hint, mut seen) = (number as u32, 0);
        let mut left = nr_requests;
        let mut in_flight: Vec<TagRun> = Vec::new();
        while left > 0 || !in_flight.is_empty() {
            // One turn: something is finished, and something is sent.
            if next() % 3 != 0
                && let Some(run) = in_flight.pop()
            {
                client.user.put_run(H, run);
            }
            let mut is_blocked = left == 0;
            if left > 0 {
                let max = (1 + next() as u32 % 5).min(left);
                match client.user.get_run_or_wait(H, TagKind::Normal, &mut hint, max) {
                    Some(run) => {
                        left -= run.len();
                        in_flight.push(run);
                    }
                    None => is_blocked = true,
                }
            }
            self.settle(client);
            if is_blocked && in_flight.is_empty() && left > 0 {
                self.sleep(client, &mut seen, false);
                if next() % 8 == 0 {
                    // A turn that is kicked and takes nothing, and then one that it kicks itself.
                    self.settle(client);
                    self.kick(TagKick { user: (number % self.clients.len()) as u64, hctx: H });
                }
            }
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        self.clients.iter().for_each(|client| client.changed.notify_all());
        while self.sleep(client, &mut seen, true) {
            self.settle(client);
        }
    }
}

fn run(nr_tags: u32, nr_users: usize, threads_each: usize, nr_requests: u32) {
    let set = TagSet::new(nr_tags, 0, 1, nr_users as u32);
    let client = |user| Client {
        user: set.join(user as u64).unwrap(),
        kicks: Mutex::new(0),
        changed: Condvar::new(),
    };
    let nr_threads = nr_users * threads_each;
    let stress = Arc::new(Stress {
        clients: (0..nr_users).map(client).collect(),
        nr_threads,
        finished: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
    });
    let threads: Vec<_> = (0..nr_threads)
        .map(|number| {
            let stress = Arc::clone(&stress);
            std::thread::spawn(move || stress.thread(number, nr_requests))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(set.tags(H).is_idle());
    let stress = Arc::into_inner(stress).unwrap();
    // What was kicked last is answered, and then nobody may be left who waits, as all is free.
    let kicks = || stress.clients.iter().map(|client| *client.kicks.lock().unwrap()).sum::<u64>();
    for round in 0.. {
        let before = kicks();
        stress.clients.iter().for_each(|client| stress.settle(client));
        if kicks() == before {
            break;
        }
        assert!(round < 100, "kicks go round for ever");
    }
    let queue = set.lane(H).queue(TagKind::Normal).unwrap();
    assert!(!queue.is_waited_for(), "somebody waits, and all is free: {set:?}");
    assert_eq!(set.nr_active(H), 0, "nobody has anything out");
    for client in stress.clients {
        client.user.leave(|kick| panic!("{kick:?}, and nobody waits"));
    }
}

#[test]
fn two_users_and_one_tag() {
    run(1, 2, 1, 100_000);
}

#[test]
fn four_users_and_few_tags() {
    run(3, 4, 1, 50_000);
}

#[test]
fn shares_and_batches() {
    run(64, 8, 1, 100_000);
}

#[test]
fn several_threads_of_one_user() {
    run(2, 2, 3, 20_000);
}
