//! What a guest's memory is besides that of a fresh instance of the same module: most guests change
//! little of it.

use super::memory::is_zero;
use crate::snapshot::bytes::{Malformed, Reader, Writer};
use alloc::{borrow::Cow, vec::Vec};

/// The memory of a fresh instance, without its zero chunks.
#[derive(Default)]
pub(super) struct Baseline {
    /// Length of the memory in bytes.
    len: usize,
    /// The indices of the chunks that are not all zero.
    chunks: Vec<u32>,
    /// The contents of these chunks. The memory's last may be shorter: it is filled up with zeros, as it
    /// is when the memory grows. Of a module that is part of a firmware they stay in its flash.
    bytes: Cow<'static, [u8]>,
}

/// A few cache lines, small enough for memories of some KiB.
const CHUNK: usize = 256;
/// Looked through for zeros at once.
const BLOCK: usize = 16 * CHUNK;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

impl Baseline {
    pub(super) fn of(memory: &[u8]) -> Self {
        let mut baseline = Self {
            len: memory.len(),
            ..Self::default()
        };
        let mut bytes = Vec::new();
        for (index, chunk) in (0..).zip(memory.chunks(CHUNK)) {
            if !is_zero(chunk) {
                baseline.chunks.push(index);
                bytes.extend_from_slice(chunk);
                bytes.resize(baseline.chunks.len() * CHUNK, 0);
            }
        }
        baseline.bytes = Cow::Owned(bytes);
        baseline
    }

    /// Appends it, to be read by [`read`](Self::read).
    #[cfg(feature = "validate")]
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.size(self.len);
        writer.size(self.chunks.len());
        for chunk in &self.chunks {
            writer.number((*chunk).into());
        }
        writer.raw(&self.bytes);
    }

    /// What was written, without copying the memory's contents.
    pub(super) fn read(reader: &mut Reader<'static>) -> Result<Self, Malformed> {
        let len = reader.size()?;
        let count = reader.size()?;
        let mut chunks = Vec::new();
        for _ in 0..count {
            let chunk = reader.fitting()?;
            if chunks.last().is_some_and(|last| *last >= chunk) {
                return Err(Malformed);
            }
            chunks.push(chunk);
        }
        let bytes = reader.raw(count.checked_mul(CHUNK).ok_or(Malformed)?)?;
        Ok(Self {
            len,
            chunks,
            bytes: Cow::Borrowed(bytes),
        })
    }

    /// Length of the memory in bytes.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Appends the bytes of a memory that differ from this one, as runs: how many bytes are as they
    /// were since the end of the previous run, the length of the run, and its bytes. What the memory
    /// has grown by is compared with zeros.
    pub(super) fn write_differences(&self, memory: &[u8], out: &mut Vec<u8>) {
        let mut runs = Runs::new(memory, out);
        self.for_each_chunk(memory, |start, chunk, base| {
            if chunk != base {
                runs.compare(start, chunk, base);
            }
        });
        runs.finish();
    }

    /// Makes a memory what it is in a fresh instance; what it has grown by becomes zero.
    pub(super) fn restore(&self, memory: &mut [u8]) {
        let mut chunks = self.nonzero_chunks();
        for (index, chunk) in (0..).zip(memory.chunks_mut(CHUNK)) {
            match chunks.next_at(index) {
                Some(base) => chunk.copy_from_slice(&base[..chunk.len()]),
                // Do not write zeros to zero pages, which may not be resident.
                None if is_zero(chunk) => {}
                None => chunk.fill(0),
            }
        }
    }

    /// Calls a function with the offset of each chunk of a memory that may differ, with the chunk and
    /// with what it is in a fresh instance.
    fn for_each_chunk(&self, memory: &[u8], mut compare: impl FnMut(usize, &[u8], &[u8])) {
        let mut nonzero = self.nonzero_chunks();
        for (block_index, block) in memory.chunks(BLOCK).enumerate() {
            let first = block_index * (BLOCK / CHUNK);
            if nonzero.is_beyond(first + BLOCK / CHUNK) && is_zero(block) {
                continue;
            }
            for (index, chunk) in (first..).zip(block.chunks(CHUNK)) {
                let base = nonzero.next_at(index as u32).unwrap_or(&ZEROS);
                compare(index * CHUNK, chunk, &base[..chunk.len()]);
            }
        }
    }

    fn nonzero_chunks(&self) -> NonzeroChunks<'_> {
        NonzeroChunks {
            indices: self.chunks.iter(),
            chunks: self.bytes.as_chunks().0.iter(),
        }
    }
}

/// The chunks of a [`Baseline`] from some point on.
struct NonzeroChunks<'a> {
    indices: core::slice::Iter<'a, u32>,
    chunks: core::slice::Iter<'a, [u8; CHUNK]>,
}

impl<'a> NonzeroChunks<'a> {
    /// The chunk of this index, if that is the next.
    fn next_at(&mut self, index: u32) -> Option<&'a [u8; CHUNK]> {
        if self.indices.as_slice().first() != Some(&index) {
            return None;
        }
        self.indices.next();
        self.chunks.next()
    }

    /// Whether the next chunk has this index, or a later one.
    fn is_beyond(&self, index: usize) -> bool {
        let next = self.indices.as_slice().first();
        next.is_none_or(|next| *next as usize >= index)
    }
}

/// Writes runs of different bytes.
struct Runs<'a> {
    memory: &'a [u8],
    out: Writer<'a>,
    /// The end of the last run that was written.
    written: usize,
    /// The run that may yet grow; empty before the first.
    start: usize,
    end: usize,
}

/// Equal bytes between two runs that make them one: a run costs about as many.
const GAP: usize = 3;

impl<'a> Runs<'a> {
    fn new(memory: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        Self {
            memory,
            out: Writer::new(out),
            written: 0,
            start: 0,
            end: 0,
        }
    }

    /// Adds the bytes of a chunk at `offset` that differ.
    fn compare(&mut self, offset: usize, chunk: &[u8], base: &[u8]) {
        let (words, rest) = chunk.as_chunks::<8>();
        let (base_words, base_rest) = base.as_chunks::<8>();
        let mut at = offset;
        for (word, base) in words.iter().zip(base_words) {
            let difference = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*base);
            if difference != 0 {
                let first = difference.trailing_zeros() as usize / 8;
                let last = 7 - difference.leading_zeros() as usize / 8;
                self.add(at + first, at + last + 1);
            }
            at += 8;
        }
        for (byte, base) in rest.iter().zip(base_rest) {
            if byte != base {
                self.add(at, at + 1);
            }
            at += 1;
        }
    }

    fn add(&mut self, start: usize, end: usize) {
        if self.end == 0 || start > self.end + GAP {
            self.flush();
            self.start = start;
        }
        self.end = end;
    }

    fn flush(&mut self) {
        if self.end > 0 {
            self.out.size(self.start - self.written);
            self.out.size(self.end - self.start);
            self.out.raw(&self.memory[self.start..self.end]);
            self.written = self.end;
        }
    }

    fn finish(mut self) {
        self.flush();
    }
}

/// Calls a function with the offset and the bytes of each run.
///
/// # Errors
///
/// If the runs are not well-formed, or end beyond `len`. The function is then called with the runs
/// before.
pub(super) fn for_each_run(
    runs: &[u8],
    len: usize,
    mut apply: impl FnMut(usize, &[u8]),
) -> Result<(), Malformed> {
    let mut reader = Reader::new(runs);
    let mut at = 0_usize;
    while !reader.is_empty() {
        let start = at.checked_add(reader.size()?).ok_or(Malformed)?;
        let bytes = reader.sized()?;
        at = start.checked_add(bytes.len()).ok_or(Malformed)?;
        if at > len || bytes.is_empty() {
            return Err(Malformed);
        }
        apply(start, bytes);
    }
    Ok(())
}
