//! The tag set in one thread: shares, who is active, who is kicked.

use std::sync::Arc;

use crate::ids::HctxId;
use crate::tags::{Tag, TagKick, TagKind, TagRun, TagSet, TagSetFull, TagUser};

const H: HctxId = HctxId(0);

fn users<const N: usize>(set: &Arc<TagSet>) -> [TagUser; N] {
    std::array::from_fn(|user| set.join(user as u64).unwrap())
}

fn take(user: &TagUser, count: usize) -> Vec<Tag> {
    (0..count).map(|_| user.get(H, TagKind::Normal, &mut 0).unwrap()).collect()
}

/// As many as the user may have.
fn take_all(user: &TagUser) -> Vec<Tag> {
    let tags = std::iter::from_fn(|| user.get_or_wait(H, TagKind::Normal, &mut 0));
    tags.collect()
}

/// Puts tags back in one turn, and says who is kicked.
fn put(user: &TagUser, tags: impl IntoIterator<Item = Tag>) -> Vec<u64> {
    tags.into_iter().for_each(|tag| user.put(H, tag));
    settle(user)
}

fn settle(user: &TagUser) -> Vec<u64> {
    let mut kicked = Vec::new();
    user.settle(H, |kick| kicked.push(kick.user));
    kicked
}

fn leave(user: TagUser) -> Vec<u64> {
    let mut kicked = Vec::new();
    user.leave(|kick| kicked.push(kick.user));
    kicked
}

/// Those who leave may kick others whose mark is still there.
fn all_leave(users: impl IntoIterator<Item = TagUser>) {
    users.into_iter().for_each(|user| drop(leave(user)));
}

#[test]
fn who_is_alone_has_all_and_two_have_half() {
    let set = TagSet::new(64, 0, 1, 8);
    let [a, b] = users(&set);
    assert_eq!(set.nr_active(H), 0);
    let mut of_a = take_all(&a);
    assert_eq!((of_a.len(), set.nr_active(H)), (64, 1));
    // B begins by waiting, and that makes it one of two.
    assert!(b.get_or_wait(H, TagKind::Normal, &mut 0).is_none());
    assert_eq!(set.nr_active(H), 2);
    let back = of_a.split_off(40);
    assert_eq!(put(&a, back), [1]);
    assert!(a.get(H, TagKind::Normal, &mut 0).is_none(), "A has more than its half");
    let of_b = take_all(&b);
    assert_eq!(of_b.len(), 24);
    assert!(settle(&b).is_empty());
    // A waits too, for its own tags: B's are of no use to it, until B is idle.
    assert!(a.get_run_or_wait(H, TagKind::Normal, &mut 0, 9).is_none());
    assert_eq!(put(&b, of_b), [1], "B is kicked: it has not got its half yet");
    assert_eq!(settle(&b), [0], "B wants no more and is idle, so A may have all");
    assert_eq!(set.nr_active(H), 1);
    of_a.extend(take(&a, 24));
    assert!(put(&a, of_a).is_empty());
    assert_eq!(set.nr_active(H), 0);
    assert!(leave(a).is_empty() && leave(b).is_empty());
}

#[test]
fn shares_are_not_below_four_and_of_one_tag_there_is_none() {
    for (nr_tags, of_each) in [(64, 13), (8, 4), (3, 3), (1, 1)] {
        let set = TagSet::new(nr_tags, 0, 1, 8);
        let users: [TagUser; 5] = users(&set);
        for user in &users[1..] {
            // Active, with nothing out: each has waited, and its mark is still there.
            let all: Vec<_> = take_all(user);
            all.into_iter().for_each(|tag| user.put(H, tag));
        }
        let all = take_all(&users[0]);
        assert_eq!(all.len(), of_each, "{nr_tags} tags");
        put(&users[0], all);
        all_leave(users);
    }
}

#[test]
fn who_leaves_gives_the_others_more() {
    let set = TagSet::new(16, 0, 1, 2);
    let [a, b] = users(&set);
    assert!(matches!(set.join(9), Err(TagSetFull)));
    let one = take(&b, 1);
    let of_a = take_all(&a);
    assert_eq!(of_a.len(), 8);
    // Of B's, A may have none, and its turn kicks nobody; then B leaves within a turn.
    assert!(settle(&a).is_empty());
    one.into_iter().for_each(|tag| b.put(H, tag));
    assert_eq!(leave(b), [0]);
    assert_eq!(take_all(&a).len() + of_a.len(), 16);
    let c = set.join(2).unwrap();
    assert!(leave(c).is_empty());
    let mut run = TagRun::default();
    for number in 0..16 {
        if let Err(tag) = set.tags(H).push(&mut run, Tag::from_index(number)) {
            a.put_run(H, std::mem::take(&mut run));
            set.tags(H).push(&mut run, tag).unwrap();
        }
    }
    a.put_run(H, run);
    drop(of_a);
    assert!(set.tags(H).is_idle());
    leave(a);
}

#[test]
fn a_kick_that_is_not_used_is_passed_on() {
    let set = TagSet::new(1, 0, 1, 4);
    let [a, b, c, d] = users(&set);
    let tag = take(&a, 1);
    for user in [&b, &c, &d] {
        assert!(user.get_or_wait(H, TagKind::Normal, &mut 0).is_none());
    }
    // Each is kicked in its turn and finds that it has nothing to send; D leaves.
    assert_eq!(put(&a, tag), [1]);
    assert_eq!(settle(&b), [2]);
    assert_eq!(settle(&c), [3]);
    assert!(leave(d).is_empty());
    let tag = take(&a, 1);
    assert!(b.get_or_wait(H, TagKind::Normal, &mut 0).is_none());
    assert!(c.get_or_wait(H, TagKind::Normal, &mut 0).is_none());
    assert_eq!(put(&a, tag), [1]);
    // B goes instead of answering.
    assert_eq!(leave(b), [2]);
    assert_eq!(settle(&c), [0; 0]);
    leave(a);
    leave(c);
}

/// Rows B12, B15 and B17: more wait than one batch wakes, and each that is woken waits again.
#[test]
fn all_are_served_though_batches_are_larger_than_what_comes_back() {
    let set = TagSet::new(64, 0, 1, 16);
    let users: [TagUser; 9] = users(&set);
    let mut held = take_all(&users[0]);
    for user in &users[1..] {
        assert!(user.get_or_wait(H, TagKind::Normal, &mut 0).is_none());
    }
    // One tag comes back, and no other ever does.
    let one = held.pop();
    let mut kicked = put(&users[0], one);
    let mut served = [0; 9];
    while let Some(user) = kicked.pop() {
        let user_now = &users[user as usize];
        if let Some(tag) = user_now.get_or_wait(H, TagKind::Normal, &mut 0) {
            served[user as usize] += 1;
            // It has more to do, and waits again, while the tag is on its way to the device.
            if served[user as usize] < 3 {
                let next = user_now.get_or_wait(H, TagKind::Normal, &mut 0);
                assert!(next.is_none(), "there is one tag");
            }
            user_now.put(H, tag);
        }
        kicked.extend(settle(user_now));
        assert!(kicked.len() <= 1, "one tag is worth one kick");
    }
    assert_eq!(served[1..], [3; 8]);
    put(&users[0], held);
    all_leave(users);
}

/// Row B16: one that really works and others that are only counted.
#[test]
fn a_small_share_is_refilled_tag_by_tag() {
    let set = TagSet::new(32, 0, 1, 8);
    let users: [TagUser; 8] = users(&set);
    let held: Vec<Tag> = users[1..].iter().flat_map(|user| take(user, 1)).collect();
    let mut of_a = take_all(&users[0]);
    assert_eq!(of_a.len(), 4);
    for _ in 0..20 {
        let one = of_a.pop();
        assert_eq!(put(&users[0], one), [0], "one tag of its own is enough to go on");
        of_a.extend(take_all(&users[0]));
        assert_eq!(of_a.len(), 4);
        assert!(settle(&users[0]).is_empty());
    }
    put(&users[0], of_a);
    for (user, tag) in users[1..].iter().zip(held) {
        put(user, [tag]);
    }
    all_leave(users);
}

#[test]
fn reserved_tags_have_no_shares_and_their_own_waiters() {
    let set = TagSet::new(6, 2, 1, 4);
    let [a, b] = users(&set);
    let normal = take_all(&a);
    assert_eq!(normal.len(), 4);
    let get = |user: &TagUser| user.get_or_wait(H, TagKind::Reserved, &mut 0);
    let reserved = [get(&a).unwrap(), get(&a).unwrap()];
    assert!(get(&b).is_none());
    assert_eq!(set.nr_active(H), 1, "who wants a reserved tag takes nobody's share");
    assert_eq!(put(&a, normal), [0], "A's own mark");
    assert!(settle(&a).is_empty());
    assert_eq!(put(&a, reserved), [1]);
    let tag = get(&b).unwrap();
    assert_eq!(tag.index(), 0);
    assert!(put(&b, [tag]).is_empty());
    // Without reserved tags nobody waits for one.
    let plain = TagSet::new(1, 0, 1, 1);
    let [c] = users(&plain);
    assert!(get(&c).is_none());
    assert!(settle(&c).is_empty());
    all_leave([a, b, c]);
}

#[test]
fn hardware_queues_stand_apart() {
    let set = TagSet::new(1, 0, 2, 4);
    assert_eq!(set.nr_hw_queues(), 2);
    let [a, b] = users(&set);
    let tag = a.get(HctxId(1), TagKind::Normal, &mut 0).unwrap();
    assert!(b.get_or_wait(HctxId(1), TagKind::Normal, &mut 0).is_none());
    put(&b, take(&b, 1));
    a.put(HctxId(1), tag);
    let mut kicked = Vec::new();
    a.settle(HctxId(1), |kick| kicked.push(kick));
    assert_eq!(kicked, [TagKick { user: 1, hctx: HctxId(1) }]);
    all_leave([a, b]);
}

#[test]
#[should_panic(expected = "leaves its tag set when")]
fn who_leaves_with_tags_is_caught() {
    let set = TagSet::new(2, 0, 1, 1);
    let [a] = users(&set);
    take(&a, 1).into_iter().for_each(|tag| assert!(tag.into_index() < 2));
    leave(a);
}

#[test]
#[should_panic(expected = "a user of a tag set leaves it")]
fn who_is_dropped_without_leaving_is_caught() {
    let set = TagSet::new(2, 0, 1, 1);
    drop(set.join(0));
}
