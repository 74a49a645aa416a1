//! How threads leave each other messages without waking who is awake.

use crate::sync::{AtomicBool, Mutex, Relaxed};

/// One thread's messages.
///
/// The sender publishes and then looks whether the receiver sleeps; the receiver says that it will
/// sleep and then looks for messages. Both go through the lock of the messages in between (pair
/// W1): either the receiver finds the message, or it looked before the message was there, and then
/// the sender, who took the lock later, sees it asleep. No fence is needed for that.
#[derive(Debug)]
pub struct Inbox<T> {
    messages: Mutex<Vec<T>>,
    asleep: AtomicBool,
}

/// Whether the receiver has to be woken. Who is told so is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sleeper that nobody wakes sleeps for ever"]
pub enum WakeUp {
    /// It sleeps, or is about to: wake it.
    Owed,
    /// It is awake, or another sender wakes it.
    No,
}

impl<T> Inbox<T> {
    /// An empty inbox, whose owner is awake.
    pub fn new() -> Self {
        Inbox { messages: Mutex::new(Vec::new()), asleep: AtomicBool::new(false) }
    }

    /// Leaves a message.
    pub fn send(&self, message: T) -> WakeUp {
        self.messages.lock().push(message);
        // Pair W1, the sender's side: the sleeper is looked at after the lock was held.
        if self.asleep.load(Relaxed) && self.asleep.swap(false, Relaxed) {
            WakeUp::Owed
        } else {
            WakeUp::No
        }
    }

    /// Moves all messages to the end of `into`, in the order of their coming.
    pub fn take(&self, into: &mut Vec<T>) {
        into.append(&mut self.messages.lock());
    }

    /// Called by the owner before it sleeps. If the answer is true it may sleep, and whoever sends
    /// wakes it; if it is false there are messages, and it stays awake.
    pub fn prepare_to_sleep(&self) -> bool {
        // Pair W1, the receiver's side: the intent is published before the lock is taken. It is a
        // swap so that, of the changes to `asleep`, each follows the one before.
        self.asleep.swap(true, Relaxed);
        if self.messages.lock().is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    /// Called by the owner when it has slept, for whatever reason it woke.
    pub fn wake_up(&self) {
        self.asleep.swap(false, Relaxed);
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}
