//! What a run is, from flags or from a file.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::{
    cli::{CHURN_MAX, LimitFlags, RATE_MAX, SECONDS_MAX, ShapeFlags, WORKERS_MAX},
    letter::{LETTER_BYTES_MAX, LETTER_BYTES_MIN},
    link::Forms,
    load::{Load, LoadStep},
    plan::{Attention, Comings, Mix, Think, USERS_MAX, USERS_MIN},
    report::{Limit, Limits},
    worker::workers_for,
};

/// Everything about a run but which node it loads, and where the results go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scenario {
    pub(crate) users: u32,
    pub(crate) load: Load,
    pub(crate) mix: Mix,
    pub(crate) attention: Attention,
    pub(crate) comings: Comings,
    pub(crate) forms: Forms,
    pub(crate) workers: u32,
    pub(crate) limits: Limits,
}

impl Scenario {
    pub(crate) fn of_flags(
        users: u32,
        rate: u32,
        seconds: u32,
        shape: &ShapeFlags,
        limits: &LimitFlags,
    ) -> Self {
        Self {
            users,
            load: Load::steady(rate, seconds, shape.payload),
            mix: shape.mix,
            attention: Attention {
                read_percent: shape.read_percent,
                think: shape.think_ms,
                // All of them, where more are asked for.
                viewers: shape.viewers.min(users),
                search_percent: shape.search_percent,
            },
            comings: Comings { churn: shape.churn, absent_percent: shape.absent_percent },
            forms: shape.form,
            workers: shape.workers.unwrap_or_else(|| workers_for(users)),
            limits: Limits::with(&limits.limit),
        }
    }

    /// As the file at `path` says; a limit that a flag gives takes the place of the file's.
    pub(crate) fn read(path: &Path, limits: &LimitFlags) -> anyhow::Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("{name}: could not be read"))?;
        let file: File = toml::from_str(&text).with_context(|| format!("{name}: no scenario"))?;
        file.scenario(&limits.limit).with_context(|| format!("{name}: no scenario"))
    }
}

/// As it stands in TOML. What a flag has a default for may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    users: u32,
    #[serde(default = "usual_payload")]
    payload: Sizes,
    mix: Option<String>,
    #[serde(default)]
    read_percent: u32,
    think_ms: Option<ThinkTime>,
    #[serde(default)]
    viewers: u32,
    #[serde(default)]
    churn: u32,
    #[serde(default)]
    absent_percent: u32,
    #[serde(default)]
    search_percent: u32,
    #[serde(default = "usual_forms")]
    form: Forms,
    workers: Option<u32>,
    step: Vec<Step>,
    #[serde(default)]
    limits: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    seconds: u32,
    rate: Rates,
}

/// A number, or the two that it lies between.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "a number of bytes, or two: the least and the most")]
enum Sizes {
    One(usize),
    Range([usize; 2]),
}

/// A number, or what the flag takes.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of milliseconds, or two in one text: \"200..3000\"")]
enum ThinkTime {
    Millis(u32),
    Text(String),
}

impl ThinkTime {
    fn think(&self) -> anyhow::Result<Think> {
        let parsed = match self {
            Self::Millis(millis) => millis.to_string().parse(),
            Self::Text(text) => text.parse(),
        };
        parsed.map_err(|wrong: String| anyhow::anyhow!("think_ms: {wrong}"))
    }
}

/// A number, or one at the beginning and one at the end.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "a number of messages a second, or two: at the beginning and at the end")]
enum Rates {
    Steady(u32),
    Ramp([u32; 2]),
}

fn usual_payload() -> Sizes {
    Sizes::One(crate::cli::USUAL_PAYLOAD)
}

fn usual_forms() -> Forms {
    Forms::Mixed
}

impl File {
    fn scenario(self, said: &[Limit]) -> anyhow::Result<Scenario> {
        let Self { users, payload, mix, read_percent, viewers, churn, absent_percent, .. } = self;
        let Self { think_ms, search_percent, form, workers, step, limits, .. } = self;
        ensure!((USERS_MIN..=USERS_MAX).contains(&users), "users: {USERS_MIN} to {USERS_MAX}");
        let workers = workers.unwrap_or_else(|| workers_for(users));
        ensure!((1..=WORKERS_MAX).contains(&workers), "workers: 1 to {WORKERS_MAX}");
        let (least, most) = match payload {
            Sizes::One(bytes) => (bytes, bytes),
            Sizes::Range([least, most]) => (least, most),
        };
        ensure!(
            LETTER_BYTES_MIN <= least && least <= most && most <= LETTER_BYTES_MAX,
            "payload: {LETTER_BYTES_MIN} to {LETTER_BYTES_MAX}, the smaller first"
        );
        let mix = match mix.map(|mix| mix.parse::<Mix>()).transpose() {
            Ok(mix) => mix.unwrap_or_default(),
            Err(wrong) => bail!("mix: {wrong}"),
        };
        mix.check(users).map_err(|wrong| anyhow::anyhow!("mix: {wrong}"))?;
        ensure!(read_percent <= 100, "read_percent: 0 to 100");
        ensure!(viewers <= users, "viewers: as many as there are users at most");
        ensure!(churn <= CHURN_MAX, "churn: at most {CHURN_MAX}");
        ensure!(absent_percent <= 100, "absent_percent: 0 to 100");
        let comings = Comings { churn, absent_percent };
        ensure!(search_percent <= 100, "search_percent: 0 to 100");
        let think = think_ms.as_ref().map(ThinkTime::think).transpose()?.unwrap_or_default();
        ensure!(read_percent > 0 || think == Think::default(), "think_ms: nobody reads, read_percent is 0");
        let attention = Attention { read_percent, think, viewers, search_percent };
        let steps = step.iter().map(Step::load).collect::<anyhow::Result<Vec<_>>>()?;
        let load = Load { steps, payload_bytes: (least, most) };
        ensure!(load.messages() > 0, "step: at least one, in which messages are sent");
        let seconds: u64 = load.steps.iter().map(|step| u64::from(step.seconds)).sum();
        ensure!(seconds <= u64::from(SECONDS_MAX), "step: all together at most {SECONDS_MAX} s");
        let limits = limits.iter().map(|(name, below_ms)| Limit::new(name, *below_ms));
        let limits =
            limits.collect::<Result<Vec<_>, _>>().map_err(|wrong| anyhow::anyhow!("limits: {wrong}"))?;
        let limits = Limits::with(&[&limits, said].concat());
        Ok(Scenario { users, load, mix, attention, comings, forms: form, workers, limits })
    }
}

impl Step {
    fn load(&self) -> anyhow::Result<LoadStep> {
        let Self { seconds, rate } = *self;
        let (from, to) = match rate {
            Rates::Steady(rate) => (rate, rate),
            Rates::Ramp([from, to]) => (from, to),
        };
        ensure!((1..=SECONDS_MAX).contains(&seconds), "step: seconds: 1 to {SECONDS_MAX}");
        ensure!(from.max(to) <= RATE_MAX, "step: rate: at most {RATE_MAX}");
        Ok(LoadStep { from, to, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Scenario> {
        toml::from_str::<File>(text)?.scenario(&["ack.p99=7".parse().expect("a limit")])
    }

    #[test]
    fn a_file_says_all_that_flags_do_and_more() {
        let scenario = parse(include_str!("../scenarios/morning.toml")).expect("sound");
        assert_eq!((scenario.users, scenario.workers, scenario.forms), (1000, 1, Forms::Mixed));
        assert_eq!(scenario.load.payload_bytes, (80, 1024));
        assert_eq!(
            scenario.load.to_string(),
            "1000 messages a second for 10 s, then 1000 to 4000 messages a second within 20 s, \
             then 4000 messages a second for 20 s, then 4000 to 0 messages a second within 10 s"
        );
        assert_eq!(scenario.mix.to_string(), "direct=70,group20=30,amend=5");
        assert_eq!(
            scenario.limits.to_string(),
            "ack.p99 below 7 ms, delivery.p99 below 100 ms, delivery.p99.9 below 200 ms"
        );
        let short = parse("users = 12\n[[step]]\nseconds = 1\nrate = 1\n").expect("sound");
        let shape = ShapeFlags {
            payload: 128,
            mix: Mix::default(),
            read_percent: 0,
            think_ms: Think::default(),
            viewers: 0,
            churn: 0,
            absent_percent: 0,
            search_percent: 0,
            form: Forms::Mixed,
            workers: None,
        };
        let limits = LimitFlags { limit: vec!["ack.p99=7".parse().expect("a limit")] };
        assert_eq!(short, Scenario::of_flags(12, 1, 1, &shape, &limits));
    }

    #[test]
    fn a_file_says_who_looks_and_reads() {
        let scenario = parse(include_str!("../scenarios/reading.toml")).expect("sound");
        let think = "200..3000".parse().expect("two numbers");
        assert_eq!(
            scenario.attention,
            Attention { read_percent: 40, think, viewers: 300, search_percent: 0 }
        );
        let steady = include_str!("../scenarios/reading.toml").replace("\"200..3000\"", "500");
        assert_eq!(parse(&steady).expect("sound").attention.think.to_string(), "500");
        let searching = parse(include_str!("../scenarios/search.toml")).expect("sound");
        assert_eq!(searching.attention, Attention { search_percent: 5, ..Attention::default() });
        assert_eq!((scenario.users, scenario.load.messages()), (600, 22_750));
        assert_eq!(
            searching.limits.to_string(),
            "ack.p99 below 7 ms, delivery.p99 below 200 ms, found.p99 below 8000 ms, search.p99 below 200 ms"
        );
        let quiet = parse(include_str!("../scenarios/morning.toml")).expect("sound");
        assert_eq!(quiet.attention, Attention::default());
    }

    #[test]
    fn a_file_says_who_comes_and_goes() {
        let scenario = parse(include_str!("../scenarios/churn.toml")).expect("sound");
        assert_eq!(scenario.comings, Comings { churn: 20, absent_percent: 20 });
        assert_eq!(scenario.mix.to_string(), "direct=40,group10=30,group99=20,group100=10,amend=5");
        assert_eq!(
            scenario.limits.to_string(),
            "ack.p99 below 7 ms, delivery.p99 below 200 ms, change.p99 below 200 ms, whole.p99 below 1000 ms"
        );
    }

    #[test]
    fn a_hall_is_ten_groups_of_500_with_ten_messages_a_second_each() {
        let scenario = parse(include_str!("../scenarios/hall.toml")).expect("sound");
        let plan = crate::plan::Plan::new("hall", scenario.users, scenario.mix);
        let sizes = plan.rooms().map(|room| plan.room(room).members().len());
        assert_eq!(sizes.filter(|members| *members == 500).count(), 10);
        assert_eq!(scenario.load.peak(), 100);
        assert_eq!(scenario.limits.to_string(), "ack.p99 below 7 ms, delivery.p99 below 50 ms");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let step = "[[step]]\nseconds = 1\nrate = 1\n";
        for (text, named) in [
            (format!("users = 11\n{step}"), "users: 12 to"),
            (format!("users = 12\npayload = [200, 100]\n{step}"), "payload: "),
            (format!("users = 12\nworkers = 0\n{step}"), "workers: 1 to"),
            (format!("users = 12\nmix = \"group2=1\"\n{step}"), "mix: a group has 3 to"),
            ("users = 12\nstep = []\n".to_owned(), "step: at least one"),
            ("users = 12\n[[step]]\nseconds = 1\nrate = [0, 0]\n".to_owned(), "step: at least one"),
            ("users = 12\n[[step]]\nseconds = 0\nrate = 1\n".to_owned(), "step: seconds: 1 to"),
            ("users = 12\n[[step]]\nseconds = 1\nrate = 1000001\n".to_owned(), "step: rate: at most"),
            (format!("users = 12\n{step}{step}").replace("seconds = 1", "seconds = 50000"), "all together"),
            (format!("users = 12\n{step}[limits]\n\"ack.p98\" = 5\n"), "limits: ack.p98"),
            (format!("users = 12\nread_percent = 101\n{step}"), "read_percent: 0 to"),
            (format!("users = 12\nthink_ms = 5\n{step}"), "think_ms: nobody reads"),
            (format!("users = 12\nread_percent = 1\nthink_ms = \"9..5\"\n{step}"), "think_ms: at most 10000"),
            (format!("users = 12\nread_percent = 1\nthink_ms = 10001\n{step}"), "think_ms: at most 10000"),
            (format!("users = 12\nread_percent = 1\nthink_ms = [2, 3]\n{step}"), "two in one text"),
            (format!("users = 12\nsearch_percent = 101\n{step}"), "search_percent: 0 to"),
            (format!("users = 12\nviewers = 13\n{step}"), "viewers: as many"),
            (format!("users = 12\nchurn = 10001\n{step}"), "churn: at most"),
            (format!("users = 12\nabsent_percent = 101\n{step}"), "absent_percent: 0 to"),
            (format!("users = 12\nspeed = 1\n{step}"), "unknown field `speed`"),
        ] {
            let wrong = parse(&text).expect_err(&text);
            assert!(format!("{wrong:#}").contains(named), "{text}: {wrong:#}");
        }
    }
}
