//! The report for people.

use super::Report;

pub(super) fn page(report: &Report) -> String {
    format!("<pre>{report}</pre>")
}
