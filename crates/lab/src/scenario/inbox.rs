//! The inbox: senders that leave messages, and a receiver that sleeps when there are none.
//!
//! Both look at what the other has published (pair W1). If either looks too early the receiver
//! sleeps with a message in its box and nobody wakes it.
//!
//! The receiver sleeps once at most. loom does not model that a read-modify-write follows at once
//! upon the store that it read: where the receiver sleeps again, it lets the swap of a sender that
//! woke nobody come after the second sleep, and reports a stall that C11 rules out.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Unexplored;
use std::sync::atomic::Ordering::Relaxed;

use super::core::{Inbox, WakeUp};
use super::stage::{JoinHandle, finding, go_on_as, if_blocked, spawn, step};
use super::thread;
use crate::Params;

const STUCK: &str = "the receiver sleeps, and there is a message in its box";
const OWED: &str = "the sender, which found the receiver awake";

/// The senders, and what each of them sends.
const SENDERS: [(&str, &[u32]); 2] = [("A", &[0]), ("B", &[1])];

const NR_MESSAGES: usize = 2;

struct Shared {
    inbox: Inbox<u32>,
    /// How many senders were told to wake the receiver.
    wake_ups: Unexplored,
}

/// Two senders, and a receiver that sleeps once at most.
pub(crate) fn one_sleep(_: &Params) {
    let shared = Arc::new(Shared { inbox: Inbox::new(), wake_ups: Unexplored::new(0) });
    let senders = SENDERS.map(|(name, messages)| spawn_sender(&shared, name, messages));
    go_on_as("receiver");
    if_blocked("stall", STUCK, OWED);
    let mut received = Vec::new();
    shared.inbox.take(&mut received);
    step(format!("has {received:?}"));
    if received.len() < NR_MESSAGES && shared.inbox.prepare_to_sleep() {
        step("sleeps");
        thread::park();
        shared.inbox.wake_up();
    }
    for sender in senders {
        sender.join().expect("a panic ends the schedule");
    }
    shared.inbox.take(&mut received);
    judge(&received, shared.wake_ups.load(Relaxed));
}

fn spawn_sender(
    shared: &Arc<Shared>,
    name: &'static str,
    messages: &'static [u32],
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    let receiver = thread::current();
    spawn(name, move || {
        for &message in messages {
            step(format!("sends {message}"));
            if shared.inbox.send(message) == WakeUp::Owed {
                step("wakes the receiver");
                shared.wake_ups.fetch_add(1, Relaxed);
                receiver.unpark();
            }
        }
    })
}

/// Each message has come once, a sender's in their order, and one sender at most was told to wake.
fn judge(received: &[u32], wake_ups: usize) {
    for (name, messages) in SENDERS {
        let came: Vec<u32> = received.iter().copied().filter(|m| messages.contains(m)).collect();
        if came != messages {
            finding("lost message", format!("of {messages:?} came {came:?}"), name);
        }
    }
    if wake_ups > 1 {
        finding("herd", format!("{wake_ups} wake-ups for one sleep"), "the senders");
    }
}
