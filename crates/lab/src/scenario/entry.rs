//! Entry: who waits for a request of the queue's is woken (pair E1).

use std::sync::Arc;

use super::core::{Config, Omission, TenantConfig, TenantId, VolumeId};
use super::stage::{go_on_as, spawn};
use super::world::{Set, read};
use crate::Params;

const OWED: &str = "who gave the request back and looked at nobody";

/// One request for two tenants, who come for it at once.
pub(crate) fn one_request(_: &Params) {
    run(1, &[0], &[1]);
}

/// Two requests. A's tenant wants both, of which one is kept for B's.
pub(crate) fn two_requests(_: &Params) {
    run(2, &[0, 0], &[1]);
}

/// As [`one_request`], and who waits does not look again after its mark.
pub(crate) fn no_second_look(params: &Params) {
    Omission::EntryLook.make();
    one_request(params);
}

/// A and B submit a bio for each of these volumes, each of which is a tenant's.
fn run(nr_requests: u32, of_a: &'static [u32], of_b: &'static [u32]) {
    let set = Set::new(Config {
        nr_ctx: 2,
        nr_requests,
        nr_tags: 4,
        tenants: vec![TenantConfig::default(); 2],
        volumes: vec![TenantId(0), TenantId(1)],
        timeout: None,
        ..Config::default()
    });
    let come = |set: &Set, ctx: u16, volumes: &[u32]| {
        let mut cpu = set.cpu(ctx);
        for (sector, volume) in volumes.iter().enumerate() {
            set.submit_bio(&mut cpu, read(sector as u64, VolumeId(*volume)));
        }
        set.settle(&mut cpu);
        cpu
    };
    let a = {
        let set = Arc::clone(&set);
        spawn("A", move || come(&set, 0, of_a))
    };
    go_on_as("B");
    let b = come(&set, 1, of_b);
    let a = a.join().expect("a panic ends the schedule");
    go_on_as("main");
    set.end(vec![a, b], OWED);
}
