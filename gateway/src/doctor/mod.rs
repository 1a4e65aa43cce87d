//! `gatehouse doctor`: looks at the host, changes nothing, and says what stands in a node's way.
//!
//! Each check says what it found, what is wanted, why, and the one line that mends it. What a kernel does not have is no
//! mistake: a check without anything to look at is left out.
//!
//! The checks take a [`Host`], which reads below a directory: `/` for an operator, a fixture in tests.

mod checks;
mod disk;
mod host;
mod network;

use std::fmt;

use serde::Serialize;

pub use checks::{Plan, examine, variables};
pub use disk::probe;
pub use host::Host;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Good,
    /// It works, and not as well as it could: or not for as many.
    Warning,
    /// A node does not start like this, or loses connections.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What it is about; stable, for scripts.
    pub name: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What would be good.
    pub wanted: String,
    /// What it decides.
    pub why: &'static str,
    /// A line for a shell, a unit or the configuration.
    pub fix: String,
}

/// All checks, for people.
pub struct Report<'a>(pub &'a [Check]);

impl Report<'_> {
    /// The worst verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.0.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Good)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|check| check.verdict == verdict).count()
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in self.0 {
            let mark = match check.verdict {
                Verdict::Good => "ok",
                Verdict::Warning => "WARN",
                Verdict::Fault => "FAULT",
            };
            writeln!(f, "{mark:5}  {:22}  {}", check.name, check.found)?;
            if check.verdict != Verdict::Good {
                writeln!(f, "       wanted  {}", check.wanted)?;
                writeln!(f, "       why     {}", check.why)?;
                writeln!(f, "       fix     {}", check.fix)?;
            }
        }
        let (good, warnings) = (self.count(Verdict::Good), self.count(Verdict::Warning));
        write!(f, "{good} good, {warnings} warnings, {} faults", self.count(Verdict::Fault))
    }
}
