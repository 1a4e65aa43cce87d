//! Where a result comes from: the program, what it was asked, and the machine. Without them a number cannot be compared with another one.

use serde::Serialize;

use super::Machine;

/// What the program is built from: a commit, with `-dirty` where its source differs from that, or `unknown` (`build.rs`).
const COMMIT: &str = env!("LOADGEN_COMMIT");

/// Stands at the beginning of each report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Origin {
    tool: &'static str,
    version: &'static str,
    /// Of this program; a node that was not built with it may be of another one.
    pub(super) commit: &'static str,
    pub(super) command: String,
    pub(super) machine: Machine,
}

impl Origin {
    /// This process.
    pub(crate) fn this() -> Self {
        Self {
            tool: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            commit: COMMIT,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::this(),
        }
    }
}
