//! Tags shared by several queues: who waits for one, who puts one back, and who is kicked.
//!
//! A client is a queue that wants so many tags, and keeps each of them or puts it back at once. It
//! takes a turn at the beginning and one for each kick. Whoever fails to get a tag waits, and
//! whoever puts one back looks who waits (pair T2). If either looks too early, or a kicked client
//! that takes nothing tells nobody, a client waits for ever while a tag is free.
//!
//! The scenario's first thread plays a client itself, which spares the explorers a thread.

use std::sync::Arc;
use std::sync::Mutex as Unexplored;

use super::core::{HctxId, Tag, TagKick, TagKind, TagSet, TagUser, TagWaits};
use super::stage::{JoinHandle, finding, go_on_as, spawn, step};
use super::sync::atomic::{AtomicBool, Ordering};
use crate::Params;

const H: HctxId = HctxId(0);

const OWED: &str = "whoever put a tag back, or was kicked and took none";

/// How many rounds of turns may be taken after the threads have ended.
const ROUNDS_MAX: usize = 32;

const NAMES: [&str; 3] = ["A", "B", "C"];

/// The numbers of the clients.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

struct World {
    set: Arc<TagSet>,
    clients: Vec<Client>,
}

/// A queue that shares the tags.
struct Client {
    user: TagUser,
    kicked: AtomicBool,
    wants: Unexplored<Wants>,
}

struct Wants {
    /// How many tags it has still to get.
    left: usize,
    /// It keeps what it gets, as does a queue whose device is slow.
    keeps: bool,
    has: Vec<Tag>,
}

/// Two tags. A has them and puts one back, while B comes for it. A stays active, as becoming idle
/// has a fence of its own, which could stand in for the one that this is about.
pub(crate) fn one(_: &Params) {
    one_for_one(TagWaits::Handoff);
}

/// As [`one`], and between waiting and the second try there is no fence.
pub(crate) fn no_fence(_: &Params) {
    one_for_one(TagWaits::NoFence);
}

/// As [`one`], and C comes too.
pub(crate) fn one_for_two(_: &Params) {
    let world = World::new(1, &[(0, true), (1, false), (1, false)], TagWaits::Handoff);
    world.take(A, 1);
    let a = spawn_putter(&world, "A", A, 1);
    let b = {
        let world = Arc::clone(&world);
        spawn("B", move || world.come(B))
    };
    go_on_as("C");
    world.come(C);
    [a, b].into_iter().for_each(join);
    world.end();
}

/// One tag, for which B and C wait. B has got by other means what it wanted it for.
pub(crate) fn pass_on(_: &Params) {
    wanted_no_more(TagWaits::Handoff);
}

/// As [`pass_on`], and who was kicked in vain tells nobody.
pub(crate) fn no_pass_on(_: &Params) {
    wanted_no_more(TagWaits::NoPassOn);
}

/// Two tags of 64 come back, one after the other, where one kick is worth two tags while another is
/// under way. B and C wait for them, and no other will come back.
pub(crate) fn batch(_: &Params) {
    let world = World::new(64, &[(0, true), (1, true), (1, true)], TagWaits::Handoff);
    world.take(A, 64);
    for client in [B, C] {
        world.turn(client, false);
    }
    let a = spawn_putter(&world, "A", A, 2);
    go_on_as("B");
    world.answer(B);
    join(a);
    world.end();
}

/// Of 8 tags A has its share, 4, and comes for one more. B puts its only tag back and is idle, and
/// C, who has none, leaves.
pub(crate) fn shares(_: &Params) {
    let world = World::new(8, &[(1, true), (0, true), (0, true)], TagWaits::Handoff);
    for client in [B, C] {
        world.take(client, 1);
    }
    world.take(A, 4);
    // C has put its tag back in a turn that is not over: it is active still.
    let tag = world.clients[C].wants().has.pop().expect("C has taken one");
    world.clients[C].user.put(H, tag);
    let b = spawn_putter(&world, "B", B, 1);
    let c = {
        let world = Arc::clone(&world);
        spawn("C", move || {
            step("ends its turn");
            world.settle(C);
        })
    };
    go_on_as("A");
    world.come(A);
    [b, c].into_iter().for_each(join);
    world.end();
}

fn one_for_one(waits: TagWaits) {
    let world = World::new(2, &[(0, true), (1, false)], waits);
    world.take(A, 2);
    let a = spawn_putter(&world, "A", A, 1);
    go_on_as("B");
    world.come(B);
    join(a);
    world.end();
}

fn wanted_no_more(waits: TagWaits) {
    let world = World::new(1, &[(0, true), (1, false), (1, false)], waits);
    world.take(A, 1);
    for client in [B, C] {
        world.turn(client, false);
    }
    world.clients[B].wants().left = 0;
    let a = spawn_putter(&world, "A", A, 1);
    let b = {
        let world = Arc::clone(&world);
        spawn("B", move || {
            world.answer(B);
        })
    };
    go_on_as("C");
    world.answer(C);
    [a, b].into_iter().for_each(join);
    world.end();
}

impl World {
    /// `clients` want so many tags each, and keep them or not.
    fn new(nr_tags: u32, clients: &[(usize, bool)], waits: TagWaits) -> Arc<Self> {
        let set = TagSet::with_waits(nr_tags, 0, 1, clients.len() as u32, waits);
        let client = |(number, &(left, keeps))| Client {
            user: set.join(number as u64).expect("the set was made for so many"),
            kicked: AtomicBool::new(false),
            wants: Unexplored::new(Wants { left, keeps, has: Vec::new() }),
        };
        Arc::new(World { clients: clients.iter().enumerate().map(client).collect(), set })
    }

    /// Gets tags for a client that there are, before anything happens.
    fn take(&self, client: usize, count: usize) {
        let Client { user, wants, .. } = &self.clients[client];
        let mut wants = wants.lock().expect("no schedule goes on after a panic");
        let tag = |_| user.get(H, TagKind::Normal, &mut 0).expect("there are so many");
        wants.has.extend((0..count).map(tag));
    }

    /// A turn: the client gets what it wants, or waits. If it puts a tag back, or was kicked, it
    /// looks at the end who else waits.
    fn turn(&self, client: usize, mut owes: bool) {
        let Client { user, .. } = &self.clients[client];
        while self.clients[client].wants().left > 0 {
            step("comes for a tag");
            let Some(tag) = user.get_or_wait(H, TagKind::Normal, &mut 0) else {
                step("waits");
                break;
            };
            let mut wants = self.clients[client].wants();
            wants.left -= 1;
            if wants.keeps {
                wants.has.push(tag);
            } else {
                drop(wants);
                step("puts its tag back");
                user.put(H, tag);
                owes = true;
            }
        }
        if owes {
            self.settle(client);
        }
    }

    /// A turn, and one for each kick.
    fn come(&self, client: usize) {
        self.turn(client, false);
        self.answer(client);
    }

    fn settle(&self, client: usize) {
        self.clients[client].user.settle(H, |kick| self.kick(kick));
    }

    fn kick(&self, kick: TagKick) {
        let client = usize::try_from(kick.user).expect("the handles are the clients' numbers");
        step(format!("kicks {}", NAMES[client]));
        self.clients[client].kicked.swap(true, Ordering::AcqRel);
    }

    /// A turn for each kick that has come. What comes later is for the end.
    fn answer(&self, client: usize) -> bool {
        let mut answered = false;
        while self.clients[client].kicked.swap(false, Ordering::AcqRel) {
            step(format!("{} was kicked", NAMES[client]));
            self.turn(client, true);
            answered = true;
        }
        answered
    }

    /// Every kick is answered, until none is left. Then everybody has what it wants, and what is
    /// free is what nobody has.
    fn end(self: Arc<Self>) {
        go_on_as("main");
        for round in 0.. {
            let answered = (0..self.clients.len()).filter(|client| self.answer(*client)).count();
            if answered == 0 {
                break;
            }
            if round > ROUNDS_MAX {
                finding("livelock", "the kicks never come to rest", OWED);
            }
        }
        let has: usize = self.clients.iter().map(|client| client.wants().has.len()).sum();
        let tags = self.set.tags(H);
        for (name, client) in NAMES.iter().zip(&self.clients) {
            let left = client.wants().left;
            if left > 0 {
                let free = tags.depth(TagKind::Normal) - tags.used();
                let stuck = format!("{name} waits for {left} more, and {free} are free");
                finding("stall", stuck, OWED);
            }
        }
        if tags.used() as usize != has {
            finding("leak", format!("{} tags are out of {has}", tags.used()), "the tags");
        }
        let world = Arc::into_inner(self).expect("the threads have ended");
        for client in world.clients {
            let wants = client.wants.into_inner().expect("no schedule goes on after a panic");
            wants.has.into_iter().for_each(|tag| client.user.put(H, tag));
            client.user.leave(|_| {});
        }
    }
}

impl Client {
    fn wants(&self) -> std::sync::MutexGuard<'_, Wants> {
        self.wants.lock().expect("no schedule goes on after a panic")
    }
}

/// A thread that puts tags of the client back, each in a turn.
fn spawn_putter(
    world: &Arc<World>,
    name: &'static str,
    client: usize,
    count: usize,
) -> JoinHandle<()> {
    let mut has = std::mem::take(&mut world.clients[client].wants().has);
    let back = has.split_off(has.len() - count);
    world.clients[client].wants().has = has;
    let world = Arc::clone(world);
    spawn(name, move || {
        for tag in back {
            step("puts a tag back");
            world.clients[client].user.put(H, tag);
            world.settle(client);
        }
    })
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("a panic ends the schedule");
}
