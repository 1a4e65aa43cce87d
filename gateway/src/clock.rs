//! The system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::ids::UnixMillis;

/// What it shows. A clock before 1970 reads as 1970, and every token is then still to come.
#[must_use]
pub fn unix_now() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}
