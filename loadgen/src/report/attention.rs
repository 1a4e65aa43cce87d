//! The lines of a run's report about what was read and viewed.

use std::fmt;

use super::Report;
use crate::{link::Counts, verify::Kind};

impl Report {
    /// What was read and viewed, where anything was.
    pub(super) fn write_attention(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { reads, reads_taken, views, receipts, presences, .. } = self.counts;
        let wrong = |kind| self.violations.counts.get(&kind).copied().unwrap_or(0);
        if reads > 0 {
            writeln!(f, "reads      {reads} said, {reads_taken} taken")?;
        }
        if views > 0 {
            let (receipts_wrong, presences_wrong) = (wrong(Kind::Receipt), wrong(Kind::Presence));
            writeln!(
                f,
                "viewers    {views} views, {receipts} receipts told, {receipts_wrong} wrong; {presences} comings and goings \
                 told, {presences_wrong} wrong"
            )?;
        }
        Ok(())
    }
}
