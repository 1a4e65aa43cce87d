//! `loadgen slow`: a crowd reads what it is sent, then nothing, then slowly, and then again as it comes, while others chat.
//!
//! ```text
//!  the others begin -> alone -> the crowd comes -> reading -> stalled -> slow -> reading again -> verify -> judge
//! ```
//! The sockets of the crowd take little, so that who does not read is a matter of the node after a second or two.

use std::{io::Write as _, process::ExitCode, time::Duration};

use super::scene::{Scene, Shape, Whom};
use crate::{
    cli::{SlowFlags, check_writable},
    link::{Pace, Step},
    report::{Bounds, SlowReport},
};

/// Of a message: a thousand readers of 300 messages a second fall behind by 17 KiB a second each, which is more in twenty seconds than
/// the node and the sockets hold for them.
const PAYLOAD_BYTES: usize = 1024;
/// Of a socket of the crowd; the system doubles it.
const RECEIVE_BUFFER_BYTES: usize = 4096;
/// Of the crowd on their way at a time, when it comes: that is no part of this.
const AT_ONCE: u32 = 200;

/// `loadgen slow`.
pub(crate) fn slow(flags: &SlowFlags) -> anyhow::Result<ExitCode> {
    let receive_buffer_bytes = Some(RECEIVE_BUFFER_BYTES);
    let shape = Shape { tag: "sl", payload_bytes: PAYLOAD_BYTES, receive_buffer_bytes };
    [&flags.crowd.json, &flags.crowd.html].into_iter().flatten().try_for_each(|path| check_writable(path))?;
    Bounds::new(&flags.limit).check(flags.crowd.pid)?;
    let mut scene = Scene::new(&flags.crowd, &shape)?;
    play(flags, &mut scene).or_else(|error| scene.abandon(error))?;
    let report = SlowReport::new(flags, scene.judge()?);
    // A reader that has gone away does not change the verdict.
    let _ = write!(std::io::stdout(), "{report}");
    report.write(flags.crowd.json.as_deref(), flags.crowd.html.as_deref())?;
    Ok(report.exit_code())
}

fn play(flags: &SlowFlags, scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let SlowFlags { seconds, crowd_rate, kbit, .. } = *flags;
    let (users, time) = (flags.crowd.users, Duration::from_secs(seconds.into()));
    scene.begin(AT_ONCE)?;
    scene.phase("alone", |scene| scene.wait(time))?;
    scene.footprint.before = scene.resident()?;
    scene.say(&format!("{users} users come"));
    scene.gather("connect", AT_ONCE)?;
    scene.step("rooms", Whom::Established, Step::OpenHalls)?;
    scene.step("mark", Whom::Crowd, Step::Mark)?;
    scene.step("chatter", Whom::Established, Step::Chatter { per_second: crowd_rate })?;
    scene.say(&format!("{users} users read {crowd_rate} messages a second, each 49 of them"));
    scene.phase("reading", |scene| scene.wait(time))?;
    scene.footprint.held = scene.resident()?;
    scene.footprint.peak = scene.footprint.held;
    for (name, pace) in [
        ("stalled", Pace::Stalled),
        ("slow", Pace::Slow { bytes_per_second: kbit.saturating_mul(1000) / 8 }),
        ("reading again", Pace::Full),
    ] {
        scene.say(name);
        scene.phase(name, |scene| {
            scene.step(name, Whom::Crowd, Step::Pace(pace))?;
            scene.wait(time)
        })?;
    }
    scene.end()
}
