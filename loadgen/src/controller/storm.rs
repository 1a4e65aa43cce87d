//! `loadgen storm`: a crowd comes all at once, falls behind, comes back and leaves, while others chat.
//!
//! ```text
//!  the others begin -> calm -> connect -> rooms -> drop -> backlog -> calm -> (the cache is dropped) -> return -> verify -> close -> judge
//! ```

use std::{io::Write as _, process::ExitCode};

use super::{
    cache::PageCache,
    scene::{CALM, Scene, Shape, Whom},
};
use crate::{
    cli::{StormFlags, check_writable},
    link::{Parting, Step},
    report::{Bounds, StormReport},
};

/// Of a message.
const PAYLOAD_BYTES: usize = 128;

/// `loadgen storm`.
pub(crate) fn storm(flags: &StormFlags) -> anyhow::Result<ExitCode> {
    let shape = Shape { tag: "st", payload_bytes: PAYLOAD_BYTES, receive_buffer_bytes: None };
    [&flags.crowd.json, &flags.crowd.html].into_iter().flatten().try_for_each(|path| check_writable(path))?;
    Bounds::new(&flags.limit).check(flags.crowd.pid)?;
    let mut cache = flags.drop_cache.then(PageCache::open).transpose()?;
    let mut scene = Scene::new(&flags.crowd, &shape)?;
    play(flags, &mut scene, cache.as_mut()).or_else(|error| scene.abandon(error))?;
    let report = StormReport::new(flags, scene.judge()?, cache.and_then(|cache| cache.dropped));
    // A reader that has gone away does not change the verdict.
    let _ = write!(std::io::stdout(), "{report}");
    report.write(flags.crowd.json.as_deref(), flags.crowd.html.as_deref())?;
    Ok(report.exit_code())
}

fn play(flags: &StormFlags, scene: &mut Scene<'_>, cache: Option<&mut PageCache>) -> anyhow::Result<()> {
    let StormFlags { at_once, backlog, .. } = *flags;
    let users = flags.crowd.users;
    scene.begin(at_once)?;
    scene.phase("calm", |scene| scene.wait(CALM))?;
    scene.footprint.before = scene.resident()?;
    scene.say(&format!("{users} users connect"));
    scene.phase("connect", |scene| scene.gather("connect", at_once))?;
    scene.phase("rooms", |scene| {
        scene.step("rooms", Whom::Established, Step::OpenHalls)?;
        scene.step("mark", Whom::Crowd, Step::Mark)
    })?;
    scene.phase("calm, all there", |scene| scene.wait(CALM))?;
    scene.footprint.held = scene.resident()?;
    scene.say(&format!("{users} users are dropped"));
    scene.phase("drop", |scene| scene.step("drop", Whom::Crowd, Step::Part(Parting::Drop)))?;
    scene.say("messages for those who are away");
    let each = backlog;
    scene.phase("backlog", |scene| scene.step("backlog", Whom::Established, Step::Backlog { each }))?;
    scene.phase("calm, all away", |scene| scene.wait(CALM))?;
    scene.footprint.away = scene.resident()?;
    scene.footprint.peak = scene.footprint.away;
    if let Some(cache) = cache {
        scene.say("the page cache is dropped");
        cache.drop_all()?;
    }
    scene.say(&format!("{users} users come back"));
    scene.phase("return", |scene| scene.gather("return", at_once))?;
    scene.phase("calm, all back", |scene| scene.wait(CALM))?;
    // Everybody has to have seen everything; then the crowd leaves, and the logs are read.
    scene.say("everybody leaves when all was seen");
    scene.phase("close", |scene| scene.step("close", Whom::Crowd, Step::Part(Parting::Close)))?;
    scene.phase("calm, all gone", |scene| scene.wait(CALM))?;
    scene.end()
}
