//! Blocks of index files that are being read, and who else waits for each: many who ask for pages of one conversation at once go through
//! the same blocks, and one read answers all of them.
//!
//! **Invariant**: a block that is being read is in no second read. Of an index file that was made again it is another block, so nobody is
//! answered from a file of before.

use hashbrown::HashMap;
use storage_log::BlockPlace;

use super::fetch::{Read, ReadPlace};

/// Bounded as jobs are: each waits for at most one block.
#[derive(Default)]
pub(super) struct Blocks {
    /// Jobs and places of those who asked after the first.
    waiting: HashMap<BlockPlace, Vec<(u32, u32)>, foldhash::fast::RandomState>,
}

impl Blocks {
    /// Notes who asks. Whether the disk is to be asked too: it is not when it already was for this block.
    pub(super) fn is_to_be_read(&mut self, read: Read) -> bool {
        let ReadPlace::Index(block) = read.what else {
            return true;
        };
        if let Some(waiting) = self.waiting.get_mut(&block) {
            waiting.push((read.job, read.place));
            return false;
        }
        self.waiting.insert(block, Vec::new());
        true
    }

    /// The block has come, or cannot be read: who waits for it beside the first.
    pub(super) fn end(&mut self, block: BlockPlace) -> Vec<(u32, u32)> {
        self.waiting.remove(&block).expect("only a block that was asked for comes")
    }
}
