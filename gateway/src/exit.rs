//! What the process says with its exit code.

/// Exit code of everything that went as asked.
pub const EXIT_OK: u8 = 0;
/// Exit code of a node that failed while serving.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of bad flags or configuration, and of a start that was refused.
pub const EXIT_REFUSED: u8 = 2;
