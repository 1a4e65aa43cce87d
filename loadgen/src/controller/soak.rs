//! `loadgen soak`: the same load again and again, for hours, each time with new users and a verdict of its own; and whether the node is
//! at the end what it was near the beginning.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{anyhow, ensure};

use super::{Plot, plot_of};
use crate::{
    cli::SoakFlags,
    clock::Moment,
    host::{Reading, holder_of},
    report::{Report, SoakReport, SoakRound, Verdict},
};

/// Rounds that are not good and have a page of their own: 100 KB each, and most are only those of a generator that was late.
const PAGES_MAX: u32 = 100;

/// `loadgen soak`.
pub(crate) fn soak(flags: &SoakFlags) -> anyhow::Result<ExitCode> {
    let outputs = &flags.run.outputs;
    ensure!(outputs.history.is_none(), "--history is of one run: a soak keeps what its rounds came to");
    let plot = plot_of(&flags.run)?;
    let mut soaked = SoakReport::new(flags.growth, plot.timing);
    let (begun, mut kept) = (Moment::now(), 0);
    let over = flags.minutes.map(|minutes| begun.after(Duration::from_secs(60 * u64::from(minutes))));
    for number in 1.. {
        let at = Moment::now().since(begun);
        let report = match plot.measure(None) {
            Ok(report) => report,
            Err(error) => {
                // What was written of the rounds before says that all is well.
                soaked.fail(&error);
                soaked.write(outputs)?;
                return Err(error);
            }
        };
        let round = round(&plot, &report, at);
        // Line by line, so that one who looks in the morning sees the night. A reader that has gone away does not change the verdict.
        let _ = writeln!(std::io::stdout(), "{round}");
        let is_wrong = report.verdict == Verdict::Bad;
        if is_wrong {
            let _ = write!(std::io::stdout(), "{report}");
        }
        if let Some(path) =
            outputs.html.as_deref().filter(|_| report.verdict != Verdict::Good && kept < PAGES_MAX)
        {
            kept += 1;
            report.write_html(&page_of_round(path, number))?;
        }
        if report.gone.is_some() && !is_wrong {
            let error = anyhow!("{}", report.reasons.join("; "));
            soaked.add(round);
            soaked.fail(&error);
            soaked.write(outputs)?;
            return Err(error);
        }
        soaked.add(round);
        soaked.write(outputs)?;
        // What a broken node does next proves nothing, and may take away the traces.
        if is_wrong || over.is_some_and(|over| Moment::now() >= over) || flags.rounds == Some(number) {
            break;
        }
    }
    let _ = write!(std::io::stdout(), "{soaked}");
    Ok(soaked.exit_code())
}

/// Beside the page of the soak, `night.html`: `night.round-7.html`.
fn page_of_round(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("round-{number}.html"))
}

fn round(plot: &Plot<'_>, report: &Report, at: Duration) -> SoakRound {
    let process = plot.lock.as_deref().and_then(holder_of);
    let resident = process.and_then(|process| Some(Reading::take(process).ok()?.resident_bytes));
    let each = |seconds: f64| seconds * 1e6 / report.counts.acked.max(1) as f64;
    SoakRound {
        at_seconds: at.as_secs_f64(),
        verdict: report.verdict,
        reasons: report.reasons.clone(),
        acked: report.counts.acked,
        delivered: report.counts.delivered,
        ack_p99_ms: report.ack.outside.p99_ms,
        delivery_p50_ms: report.delivery.outside.p50_ms,
        delivery_p99_ms: report.delivery.outside.p99_ms,
        lag_p99_ms: report.lag.outside.p99_ms,
        process,
        node_bytes: resident,
        cpu_micros: report.node_cpu_seconds.map(each),
        multiples: report.multiples.clone(),
    }
}
