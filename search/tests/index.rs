//! An index by what it finds: added, replaced, removed and erased, over starts and damage.

#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use search::{Asked, Candidates, Check, Document, Index, IndexError, Opened, Place, Reader, Scope};

const TALK: [u8; 16] = [7; 16];
const OTHER: [u8; 16] = [9; 16];

fn made(directory: &Path) -> Index {
    match Index::open(directory, Check::Sums).expect("it can be made") {
        Opened::Made(index) => index,
        Opened::Found { mark, .. } => panic!("there is one, at {mark}"),
    }
}

fn found(directory: &Path) -> (Index, String) {
    match Index::open(directory, Check::Sums).expect("it can be opened") {
        Opened::Found { index, mark } => (index, mark),
        Opened::Made(_) => panic!("there is none"),
    }
}

/// A message at the position ten times its sequence, in milliseconds too.
fn message(conversation: [u8; 16], seq: u64, text: &str) -> Document<'static> {
    let words = text.split(' ').map(str::to_owned).collect();
    Document { conversation, seq, sender: b"alice", at: seq * 10, log: 0, position: seq * 10, words }
}

fn purge(index: &mut Index) {
    while !index.purge().expect("it can be written") {}
}

fn everywhere() -> Arc<Scope> {
    Arc::new(Scope::new([(TALK, 1), (OTHER, 1)]))
}

fn find(reader: &Reader, text: &str, scope: &Arc<Scope>, before: Option<Place>, max: usize) -> Candidates {
    let words = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let asked = Asked { words, scope: scope.clone(), before, candidates_max: max };
    reader.find(&asked).expect("the index can be read")
}

/// Sequences of what has the words, newest first.
fn seqs(reader: &Reader, text: &str) -> Vec<u64> {
    let found = find(reader, text, &everywhere(), None, 100);
    assert!(!found.more);
    found.newest.iter().map(|candidate| candidate.seq).collect()
}

#[test]
fn what_has_all_words_is_found_newest_first_and_only_where_it_is_looked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    for (seq, text) in [(1, "red fish"), (2, "blue fish"), (3, "red blue"), (5, "fish red old")] {
        index.add(message(TALK, seq, text)).expect("added");
    }
    index.add(message(OTHER, 4, "red fish")).expect("added");
    let reader = index.reader();
    assert_eq!(seqs(&reader, "fish"), [] as [u64; 0], "nothing is seen before it is committed");
    index.commit("a").expect("committed");
    // In another file of the index, and older than some of the first.
    index.add(message(TALK, 6, "fish")).expect("added");
    index.add(Document { at: 1, ..message(TALK, 8, "fish") }).expect("added");
    index.add(Document { words: Vec::new(), ..message(TALK, 9, "") }).expect("nothing to find it by");
    index.commit("b").expect("committed");
    assert_eq!(reader.documents(), 7);
    assert_eq!(seqs(&reader, "fish"), [6, 5, 4, 2, 1, 8]);
    assert_eq!(seqs(&reader, "fish red"), [5, 4, 1]);
    assert_eq!(seqs(&reader, "fis"), [] as [u64; 0]);
    assert_eq!(seqs(&reader, ""), [] as [u64; 0]);
    let in_scope = |scope: Scope| {
        let found = find(&reader, "fish", &Arc::new(scope), None, 100);
        found.newest.iter().map(|candidate| (candidate.conversation[0], candidate.seq)).collect::<Vec<_>>()
    };
    assert_eq!(in_scope(Scope::new([(OTHER, 1)])), [(9, 4)]);
    assert_eq!(in_scope(Scope::new([(TALK, 5), (OTHER, 5)])), [(7, 6), (7, 5), (7, 8)], "from there on");
    assert_eq!(in_scope(Scope::new([])), []);
    // Of a user in very many conversations they are not named.
    let many = (0..3_000_u64).map(|number| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_le_bytes());
        (id, 1)
    });
    assert_eq!(in_scope(Scope::new(many.chain([(OTHER, 1)]))), [(9, 4)]);
}

#[test]
fn pages_go_on_below_the_last_one_and_say_whether_there_is_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    // Many at one moment, in several files.
    for seq in 1..=30 {
        index.add(Document { at: seq / 10, ..message(TALK, seq, "word") }).expect("added");
        if seq % 7 == 0 {
            index.commit("a").expect("committed");
        }
    }
    index.commit("b").expect("committed");
    let (reader, mut before, mut seen) = (index.reader(), None, Vec::new());
    loop {
        let page = find(&reader, "word", &everywhere(), before, 4);
        seen.extend(page.newest.iter().map(|candidate| candidate.seq));
        before = page.newest.last().copied();
        if !page.more {
            break;
        }
        assert_eq!(page.newest.len(), 4);
    }
    assert_eq!(seen, (1..=30).rev().collect::<Vec<_>>());
}

#[test]
fn a_message_that_is_edited_is_found_by_what_it_says_now_and_one_that_is_removed_by_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    for (seq, text) in [(1, "old words"), (2, "old"), (3, "old")] {
        index.add(message(TALK, seq, text)).expect("added");
    }
    index.add(message(OTHER, 2, "old")).expect("added");
    // One is committed before it is edited, one is not.
    index.commit("a").expect("committed");
    index.remove_message(TALK, 1);
    index.add(Document { position: 50, ..message(TALK, 1, "new words") }).expect("added");
    index.add(message(TALK, 4, "old")).expect("added");
    index.remove_message(TALK, 4);
    index.remove_message(TALK, 3);
    index.commit("b").expect("committed");
    let reader = index.reader();
    assert_eq!(seqs(&reader, "old"), [2, 2]);
    assert_eq!(seqs(&reader, "new words"), [1]);
    purge(&mut index);
    assert_eq!((seqs(&reader, "words"), reader.documents()), (vec![1], 3));
}

#[test]
fn what_a_page_has_told_is_not_found_behind_it_by_an_index_that_knows_an_older_form() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    // Both were stored in one millisecond, and the first is edited when both are there.
    let one = |seq| Document { at: 10, ..message(TALK, seq, "word") };
    index.add(one(1)).expect("added");
    index.add(one(2)).expect("added");
    index.commit("a").expect("committed");
    let before_edit = find(&index.reader(), "word", &everywhere(), None, 10).newest;
    index.remove_message(TALK, 1);
    index.add(Document { position: 30, ..one(1) }).expect("added");
    index.commit("b").expect("committed");
    let reader = index.reader();
    let first = find(&reader, "word", &everywhere(), None, 1).newest;
    assert_eq!(first.iter().map(|place| place.seq).collect::<Vec<_>>(), [2], "an edit moves no message");
    let second = find(&reader, "word", &everywhere(), first.last().copied(), 1).newest;
    assert_eq!(second.iter().map(|place| place.seq).collect::<Vec<_>>(), [1]);
    // One that is made anew knows both as they were first.
    let below = before_edit.iter().filter(|place| **place < second[0]);
    assert_eq!(below.count(), 0, "{before_edit:?} behind {second:?}");
}

#[test]
fn what_is_erased_is_what_was_said_up_to_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    for seq in 1..=3 {
        index.add(message(TALK, seq, "secretive")).expect("added");
        index
            .add(Document { sender: b"bob", position: seq * 10 + 1, ..message(OTHER, seq, "secretive") })
            .expect("added");
        index.add(Document { log: 1, ..message([5; 16], seq, "secretive") }).expect("added");
    }
    index.commit("a").expect("committed");
    let reader = index.reader();
    let scope = Arc::new(Scope::new([(TALK, 1), (OTHER, 1), ([5; 16], 1)]));
    let all = |reader: &Reader| {
        let found = find(reader, "secretive", &scope, None, 100);
        let mut all: Vec<_> = found.newest.iter().map(|found| (found.conversation[0], found.seq)).collect();
        all.sort_unstable();
        all
    };
    index.remove_sender(b"alice", 0, 20).expect("removed");
    index.commit("b").expect("committed");
    assert_eq!(all(&reader), [(5, 1), (5, 2), (5, 3), (7, 3), (9, 1), (9, 2), (9, 3)]);
    index.remove_conversation(OTHER, u64::MAX, 0, 11).expect("removed");
    index.commit("c").expect("committed");
    assert_eq!(all(&reader), [(5, 1), (5, 2), (5, 3), (7, 3), (9, 2), (9, 3)]);
    index.remove_conversation([5; 16], 2, 1, u64::MAX).expect("removed");
    index.commit("c").expect("committed");
    assert_eq!(all(&reader), [(5, 2), (5, 3), (7, 3), (9, 2), (9, 3)]);
    index.remove_before(25).expect("removed");
    index.commit("c").expect("committed");
    assert_eq!(all(&reader), [(5, 3), (7, 3), (9, 3)]);
    // The words themselves go with the files that had them.
    index.remove_sender(b"alice", 0, u64::MAX).expect("removed");
    index.remove_sender(b"alice", 1, u64::MAX).expect("removed");
    index.remove_sender(b"bob", 0, u64::MAX).expect("removed");
    index.commit("d").expect("committed");
    purge(&mut index);
    assert_eq!(reader.documents(), 0);
    drop((index, reader));
    for entry in fs::read_dir(directory.path()).expect("a directory").flatten() {
        let bytes = fs::read(entry.path()).expect("a file");
        assert!(!bytes.windows(9).any(|bytes| bytes == b"secretive"), "{:?}", entry.path());
    }
}

#[test]
fn what_was_committed_is_there_at_the_next_start_with_its_mark_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    assert!(matches!(Index::open(directory.path(), Check::Sums), Err(IndexError::Busy)), "it is open");
    index.add(message(TALK, 1, "first")).expect("added");
    index.commit("1 7").expect("committed");
    index.add(message(TALK, 2, "first")).expect("added");
    drop(index);
    let (mut index, mark) = found(directory.path());
    assert_eq!((mark.as_str(), seqs(&index.reader(), "first")), ("1 7", vec![1]));
    index.commit("1 8").expect("committed");
    drop(index);
    assert_eq!(found(directory.path()).1, "1 8");
}

#[test]
fn an_index_that_is_not_what_was_written_is_refused_and_made_anew() {
    for (name, bytes) in [
        ("meta.json", &b"{"[..]),
        (".managed.json", b"x"),
        ("meta.json", b"{\"segments\":[],\"schema\":[],\"opstamp\":0}"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("search");
        let mut index = made(&path);
        index.add(message(TALK, 1, "first")).expect("added");
        index.commit("1").expect("committed");
        drop(index);
        fs::write(path.join(name), bytes).expect("written");
        assert!(matches!(Index::open(&path, Check::Sums), Err(IndexError::Damaged(_))), "{name}");
        Index::remove(&path).expect("removed");
        Index::remove(&path).expect("it is gone already");
        assert_eq!(made(&path).reader().documents(), 0);
    }
    // A bit of it has rotted, in whatever file.
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    for seq in 1..=100 {
        index.add(message(TALK, seq, "first second third")).expect("added");
    }
    index.remove_message(TALK, 7);
    index.commit("1").expect("committed");
    index.remove_message(TALK, 8);
    index.commit("1").expect("committed");
    drop(index);
    let mut seen = 0;
    for file in fs::read_dir(directory.path()).expect("a directory").flatten() {
        let bytes = fs::read(file.path()).expect("a file");
        if file.path().extension().is_some_and(|ending| ["json", "lock"].iter().any(|known| ending == *known))
        {
            continue;
        }
        let mut rotten = bytes.clone();
        rotten[bytes.len() / 3] ^= 4;
        fs::write(file.path(), rotten).expect("written");
        assert!(
            matches!(Index::open(directory.path(), Check::Sums), Err(IndexError::Damaged(_))),
            "{:?}",
            file.path()
        );
        fs::write(file.path(), bytes).expect("written");
        seen += 1;
    }
    assert!(seen >= 5 && found(directory.path()).1 == "1", "{seen} files");
    // A file of it is gone.
    let directory = tempfile::tempdir().expect("a directory");
    let mut index = made(directory.path());
    index.add(message(TALK, 1, "first")).expect("added");
    index.commit("1").expect("committed");
    drop(index);
    let mut files = fs::read_dir(directory.path()).expect("a directory").flatten();
    let file = files.find(|file| file.path().extension().is_some_and(|ending| ending == "term"));
    fs::remove_file(file.expect("words are in a file").path()).expect("removed");
    assert!(matches!(Index::open(directory.path(), Check::Sums), Err(IndexError::Damaged(_))));
}

/// Its files are as the engine makes them: nobody else comes so far, also where an index was made before.
#[test]
fn what_was_said_is_no_matter_of_other_users_of_the_host() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("search");
    for before in [None, Some(0o755)] {
        if let Some(mode) = before {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("one's own directory");
        }
        drop(Index::open(&path, Check::Sums).expect("an index"));
        let mode = fs::metadata(&path).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
