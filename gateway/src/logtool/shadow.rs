//! Index files checked against the log that they are made from.
//!
//! A [`Shadow`] reads what a walk reads as a start would, and makes the index file of each segment again, in memory. It gives up
//! where the log is damaged: behind that, a file is only asked whether it holds its checksums.

use std::convert::Infallible;

use storage_log::format::{INDEX_FOOTER_BYTES, index_at};
use storage_log::{
    INDEX_BLOCK_BYTES, IndexFooter, LogConfig, Scan, is_cold, is_index_block_sound, is_index_tail_sound,
};

use super::Piece;

/// A range of an index file that is not what it should be: offset and length.
pub(super) type Range = (u64, u64);

pub(super) struct Shadow {
    /// None once the log is damaged.
    scan: Option<Scan>,
    base: Option<u64>,
    /// The open segment was read to its end.
    ended: bool,
}

impl Shadow {
    pub(super) fn new(config: &LogConfig) -> Self {
        Self { scan: Some(Scan::new(config.clone(), 0)), base: None, ended: false }
    }

    /// Takes what the walk took.
    pub(super) fn follow(&mut self, piece: &Piece<'_>) {
        let Some(scan) = &mut self.scan else {
            return;
        };
        if self.base != Some(piece.base) {
            (self.base, self.ended) = (Some(piece.base), false);
            // One that was compacted says itself what it holds, and not what it was made from.
            if !scan.open_segment(piece.base, piece.header).is_ok_and(|in_log| !is_cold(in_log)) {
                self.scan = None;
                return;
            }
        }
        if self.ended {
            return;
        }
        let fed = (scan.offset() == piece.offset).then(|| scan.feed(piece.bytes, piece.to_end, &mut |_| {}));
        match fed {
            Some(Ok(fed)) => self.ended = fed.ended,
            Some(Err(_)) | None => self.scan = None,
        }
    }

    /// The next index file that is due: base of its segment, and its bytes.
    pub(super) fn poll(&mut self) -> Option<(u64, Vec<u8>)> {
        let scan = self.scan.as_mut()?;
        let (job, mut file) = (scan.poll_index()?, Vec::new());
        let base = job.base();
        let Ok(sealed) = job.write(|bytes| {
            file.extend_from_slice(bytes);
            Ok::<(), Infallible>(())
        });
        drop(job);
        scan.handle_indexed(Some(sealed));
        Some((base, file))
    }
}

/// Where an index file is not what is made from its segment. The footer also says how the log stood when the file was made: that
/// part need only hold its checksum.
pub(super) fn differences(
    mut made: Vec<u8>,
    mut found: Vec<u8>,
    base: u64,
    config: &LogConfig,
) -> Vec<Range> {
    let whole = vec![(0, found.len() as u64)];
    if made.len() != found.len() {
        return whole;
    }
    let footer_at = found.len() - INDEX_FOOTER_BYTES;
    let mut ranges = Vec::new();
    let is_sound = IndexFooter::parse(&found[footer_at..], base, config).is_some();
    for file in [&mut made, &mut found] {
        for field in [index_at::CHECKSUM, index_at::DURABLE_LSN, index_at::CLOCK] {
            file[footer_at..][field].fill(0);
        }
    }
    let blocks =
        made[..footer_at].chunks(INDEX_BLOCK_BYTES).zip(found[..footer_at].chunks(INDEX_BLOCK_BYTES));
    for (number, (made, found)) in blocks.enumerate() {
        if made != found {
            ranges.push(((number * INDEX_BLOCK_BYTES) as u64, found.len() as u64));
        }
    }
    if !is_sound || made[footer_at..] != found[footer_at..] {
        ranges.push((footer_at as u64, INDEX_FOOTER_BYTES as u64));
    }
    ranges
}

/// Where an index file does not hold its checksums.
pub(super) fn unsound(file: &[u8], base: u64, config: &LogConfig) -> Vec<Range> {
    let whole = vec![(0, file.len() as u64)];
    let Some(footer_at) = file.len().checked_sub(INDEX_FOOTER_BYTES) else {
        return whole;
    };
    let footer = IndexFooter::parse(&file[footer_at..], base, config);
    let Some(footer) = footer.and_then(|footer| footer.in_file(file.len() as u64)) else {
        return vec![(footer_at as u64, INDEX_FOOTER_BYTES as u64)];
    };
    let tail_at = footer_at - footer.tail_bytes();
    let blocks =
        (0..footer.blocks()).zip(file[footer.blocks_at() as usize..tail_at].chunks(INDEX_BLOCK_BYTES));
    let damaged = blocks.filter(|(number, block)| !is_index_block_sound(base, *number, block));
    let mut ranges: Vec<Range> = damaged
        .map(|(number, block)| {
            (footer.blocks_at() + u64::from(number) * INDEX_BLOCK_BYTES as u64, block.len() as u64)
        })
        .collect();
    if !is_index_tail_sound(&footer, &file[tail_at..footer_at]) {
        ranges.push((tail_at as u64, footer.tail_bytes() as u64));
    }
    ranges
}
