//! What all pages for people have in common: one file that needs nothing else, in light and dark.

use std::fmt::Write;

use super::{
    Multiples, Origin, Verdict, floor,
    svg::{Axis, Chart},
};

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#59636e;--rule:#d8dee4;--band:#f0c24b55;\
--one:#1f63c6;--two:#b3540a;--three:#1a7f45;--good:#1a7f45;--bad:#c22a2a;--invalid:#9a6700}\
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e6e9ec;--soft:#9aa4af;--rule:#333a42;\
--band:#e3b34133;--one:#7ab0ff;--two:#f0a35e;--three:#63c98c;--good:#63c98c;--bad:#ff7b72;--invalid:#e3b341}}\
body{margin:2rem auto;max-width:50rem;padding:0 1rem;background:var(--paper);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}\
p{margin:.3rem 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}\
.invalid{color:var(--invalid)}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.15rem .9rem .15rem 0;text-align:right;border-bottom:1px solid var(--rule)}\
th:first-child,td:first-child{text-align:left}code{overflow-wrap:anywhere}\
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}\
svg path{fill:none;stroke-width:1.6}.grid{stroke:var(--rule)}.limit{stroke:var(--bad);stroke-dasharray:5 4}\
.band{fill:var(--band)}path.one{stroke:var(--one)}path.two{stroke:var(--two)}path.three{stroke:var(--three)}\
circle.one{fill:var(--one)}circle.two{fill:var(--two)}circle.three{fill:var(--three)}\
.key span{margin-right:1.2rem}.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;\
vertical-align:-1px;margin-right:.35rem}";

/// A page with a verdict above and the machine below. `intro` and `reasons` are plain text, `body` is not.
pub(super) fn frame(
    verdict: Verdict,
    intro: &str,
    reasons: &[String],
    body: &str,
    origin: &Origin,
) -> String {
    let word = verdict.word();
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>loadgen: {word}</title><style>{STYLE}</style></head><body>\
         <h1>Verdict: <span class=\"{word}\">{word}</span></h1><p>{}</p>",
        escape(intro)
    );
    for reason in reasons {
        let _ = write!(page, "<p class=\"{word}\">{}</p>", escape(reason));
    }
    page.push_str(body);
    let Origin { commit, command, machine, .. } = origin;
    let _ = write!(
        page,
        "<h2>Machine</h2><p>{}, {} cores, {} MiB, Linux {}; loadgen is built from {commit}. Generator and node share it when \
         the node listens on this machine.</p><p class=\"soft\"><code>{}</code></p></body></html>",
        escape(&machine.processor),
        machine.cores,
        machine.memory_mib,
        escape(&machine.kernel),
        escape(command)
    );
    page
}

/// A chart with a heading and the meaning of its colours, which are class and name.
pub(super) fn figure(title: &str, key: &[(&str, &str)], chart: Chart) -> String {
    let mut text = format!("<h2>{title}</h2><p class=\"key\">");
    for (class, name) in key {
        let _ = write!(text, "<span><i style=\"background:var(--{class})\"></i>{name}</span>");
    }
    let _ = write!(text, "</p>{}", chart.finish());
    text
}

/// A line of a chart over time: where nothing was measured there is a gap.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) values: Vec<(f64, Option<f64>)>,
}

/// A chart over time.
pub(super) struct OverTime<'a> {
    pub(super) title: &'a str,
    /// Of the values, and of time.
    pub(super) units: (&'a str, &'a str),
    pub(super) is_logarithmic: bool,
    /// What must not be passed.
    pub(super) limit: Option<f64>,
    /// Spans that are different, with their names.
    pub(super) spans: &'a [(f64, f64, &'a str)],
    /// Three at most: so many colours there are.
    pub(super) lines: &'a [Line<'a>],
}

impl OverTime<'_> {
    /// Nothing, where nothing was measured.
    pub(super) fn draw(&self) -> String {
        const CLASSES: [&str; 3] = ["one", "two", "three"];
        let (unit, time_unit) = self.units;
        let all = || self.lines.iter().flat_map(|line| &line.values);
        if all().all(|(_, value)| value.is_none()) {
            return String::new();
        }
        let values = all().filter_map(|(_, value)| *value).chain(self.limit);
        let y = if self.is_logarithmic { Axis::logarithmic(values) } else { Axis::linear(values) };
        let mut chart = Chart::new(self.title, Axis::linear(all().map(|(time, _)| *time)), y);
        for (from, until, name) in self.spans {
            chart.band(*from, *until, name);
        }
        chart.x_numbers(time_unit);
        chart.y_ticks(unit);
        if let Some(limit) = self.limit {
            chart.limit(limit, "what is asked");
        }
        for (Line { name, values }, class) in self.lines.iter().zip(CLASSES) {
            let points = values.iter().map(|(time, value)| {
                let title = format!("{time}{time_unit}: {name} {:.2}{unit}", value.unwrap_or_default());
                (*time, *value, title)
            });
            chart.line(class, &points.collect::<Vec<_>>());
        }
        let key = CLASSES.iter().zip(self.lines).map(|(class, line)| (*class, line.name));
        figure(self.title, &key.collect::<Vec<_>>(), chart)
    }
}

/// A table with a heading. What stands in it is plain text.
pub(super) fn table(title: &str, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("<h2>{title}</h2><table><tr>");
    columns.iter().for_each(|name| _ = write!(text, "<th>{}</th>", escape(name)));
    text.push_str("</tr>");
    for row in rows {
        text.push_str("<tr>");
        row.iter().for_each(|cell| _ = write!(text, "<td>{}</td>", escape(cell)));
        text.push_str("</tr>");
    }
    text + "</table>"
}

/// The figures as multiples of what the bare machine can do, where that is known.
pub(super) fn beside_the_bare_machine(multiples: Option<&Multiples>) -> String {
    let Some(multiples) = multiples else { return String::new() };
    let rows = multiples.rows().map(Vec::from);
    let table = table("Beside the bare machine", &["", "measured", "bare", "times"], rows);
    format!("{table}<p class=\"soft\">{}</p>", floor::BARE)
}

/// Text as text, wherever it came from.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_line_for_each_name_and_none_where_nothing_was_measured() {
        let line = |name, value| Line { name, values: vec![(1.0, Some(2.0)), (2.0, value)] };
        let chart = |lines: &[Line<'_>]| {
            let (title, units, spans) = ("Pongs", (" ms", " s"), &[(1.0, 2.0, "all leave")]);
            OverTime { title, units, is_logarithmic: true, limit: Some(5.0), spans, lines }.draw()
        };
        let text = chart(&[line("p50", Some(3.0)), line("p99", None)]);
        assert_eq!((text.matches("<path").count(), text.matches("<circle").count()), (2, 3), "{text}");
        for words in ["<h2>Pongs</h2>", "all leave", "2 s: p50 3.00 ms", "class=\"limit\""] {
            assert!(text.contains(words), "no {words} in {text}");
        }
        assert_eq!(chart(&[Line { name: "p50", values: vec![(1.0, None)] }]), "");
    }

    #[test]
    fn what_comes_from_elsewhere_is_no_markup() {
        let rows = [vec!["<b>".to_owned(), "&".to_owned()]].into_iter();
        let page = frame(
            Verdict::Bad,
            "<i>",
            &["\"<p>\"".to_owned()],
            &table("Steps", &["a<b"], rows),
            &Origin::this(),
        );
        for words in ["&lt;b&gt;", "a&lt;b", "&amp;</td>", "<p>&lt;i&gt;</p>", "&quot;&lt;p&gt;&quot;"] {
            assert!(page.contains(words), "no {words} in {page}");
        }
    }
}
