//! What strace says of a node.

use std::{collections::HashMap, fs, path::PathBuf, time::Instant};

use crate::node::PATIENCE;

/// The calls that are traced: those that make files durable, name and remove them, open and read them.
pub(crate) const CALLS: &str =
    "trace=openat,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,read,pread64,preadv,preadv2";

/// One system call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Who made it.
    pub(crate) thread: String,
    /// All of it, as strace writes it.
    pub(crate) text: String,
    /// What it names.
    pub(crate) paths: Vec<String>,
    /// The file that is open under its first argument, or nothing.
    pub(crate) file: String,
    /// Line on which it was seen to begin.
    pub(crate) begun: usize,
    /// Line on which it was seen to have ended: the same, or a later one.
    pub(crate) ended: usize,
}

impl Call {
    fn of(thread: &str, text: &str, begun: usize, ended: usize) -> Option<Self> {
        let (name, arguments) = text.split_once('(')?;
        let paths = arguments.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        // A descriptor is followed by its file: `5</data/lock>`.
        let first = arguments.split([',', ')']).next().unwrap_or_default();
        let file = first.split_once('<').and_then(|(_, file)| file.strip_suffix('>')).unwrap_or_default();
        let [name, thread, text, file] = [name, thread, text, file].map(str::to_owned);
        Some(Self { name, thread, text, paths, file, begun, ended })
    }

    /// Whether it succeeded.
    pub(crate) fn is_done(&self) -> bool {
        let result = self.text.rsplit_once(" = ").map(|(_, result)| result);
        result.is_some_and(|result| result.starts_with(|first: char| first.is_ascii_digit()))
    }
}

/// The calls of one run of a node.
pub(crate) struct Trace(Vec<Call>);

impl Trace {
    /// Those of these names, in the order in which they ended.
    pub(crate) fn of<'t>(&'t self, names: &'t [&str]) -> impl Iterator<Item = &'t Call> {
        self.0.iter().filter(|call| names.contains(&call.name.as_str()))
    }
}

/// Where strace writes.
pub(crate) struct TraceFile(pub(crate) PathBuf);

impl TraceFile {
    /// What it wrote, when the node has ended.
    #[track_caller]
    pub(crate) fn read(&self) -> Trace {
        let begun = Instant::now();
        let text = loop {
            let text = fs::read_to_string(&self.0).expect("strace writes it");
            // The thread group's leader ends last.
            let process = text.split(' ').next().unwrap_or_default();
            let is_end = |line: &str| line.starts_with(process) && line.contains(" +++ ");
            if text.ends_with('\n') && text.lines().last().is_some_and(is_end) {
                break text;
            }
            assert!(begun.elapsed() < PATIENCE, "strace does not end: {:?}", text.lines().last());
            std::thread::yield_now();
        };
        let (mut calls, mut unfinished) = (Vec::new(), HashMap::new());
        for (number, line) in text.lines().enumerate() {
            let (thread, said) = line.split_once(' ').expect("a thread and a call");
            let said = said.trim_start();
            if let Some(first) = said.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, (number, first));
            } else if let Some(rest) = said.strip_prefix("<... ") {
                let (begun, first) = unfinished.remove(thread).expect("it was begun");
                let rest = rest.split_once(" resumed>").map_or("", |(_, rest)| rest);
                calls.extend(Call::of(thread, &format!("{first}{rest}"), begun, number));
            } else {
                calls.extend(Call::of(thread, said, number, number));
            }
        }
        assert!(calls.len() > 100, "{} calls of a node", calls.len());
        Trace(calls)
    }
}
