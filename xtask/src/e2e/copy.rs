//! nbdcopy, both ways over several connections, and what it left compared byte for byte.

use std::time::Duration;

use anyhow::Result;

use super::image::{expect_same, make_image};
use super::{Check, Setup, Stage};
use crate::exec::Call;

const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, setup) in Setup::variety() {
        checks.push(Check::new(name, move |stage| both_ways(stage, &setup(stage))));
    }
    checks.push(Check::new("volume to volume", between_volumes));
    checks
}

/// Copies an image with holes over a volume full of other data, and back.
fn both_ways(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    let (first, image, back) = (server.join("first"), server.join("image"), server.join("back"));
    make_image(&first, setup.volume_bytes, 1)?;
    make_image(&image, setup.volume_bytes, 2)?;
    let copy = |arguments: &[&str]| {
        Call::new("nbdcopy").args(["--connections=4", "--flush"]).args(arguments).limit(LIMIT)
    };
    copy(&[]).arg(&first).arg(server.uri("gold")).ok()?;
    copy(&[]).arg(&image).arg(server.uri("gold")).ok()?;
    copy(&[]).arg(server.uri("gold")).arg(&back).ok()?;
    expect_same(&image, &back)?;
    // Once more in small pieces, with many of them in flight.
    copy(&["--request-size=4096", "--requests=64"]).arg(&first).arg(server.uri("gold")).ok()?;
    std::fs::remove_file(&back)?;
    copy(&["--request-size=8192", "--requests=64"]).arg(server.uri("gold")).arg(&back).ok()?;
    expect_same(&first, &back)?;
    server.stop().map(drop)
}

/// Both volumes at once, over eight connections: neither touches the other's data.
fn between_volumes(stage: &Stage) -> Result<()> {
    let server = stage.serve(&Setup::new("file", stage.volume_bytes()))?;
    let (image, back) = (server.join("image"), server.join("back"));
    make_image(&image, server.volume_bytes(), 3)?;
    let copy = || Call::new("nbdcopy").arg("--connections=4").limit(LIMIT);
    copy().arg(&image).arg(server.uri("gold")).ok()?;
    copy().arg(server.uri("gold")).arg(server.uri("bronze")).ok()?;
    copy().arg(server.uri("bronze")).arg(&back).ok()?;
    expect_same(&image, &back)?;
    let again = server.join("again");
    copy().arg(server.uri("gold")).arg(&again).ok()?;
    expect_same(&image, &again)?;
    server.stop().map(drop)
}
