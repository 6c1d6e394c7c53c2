//! The lines of a file and their places, in bounded memory.

use std::io::{self, BufRead, Read};

/// Reads one line after another into one buffer.
pub(super) struct Lines<R> {
    reader: R,
    limit: usize,
    buffer: Vec<u8>,
    next_offset: u64,
    next_number: usize,
}

/// One line.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub number: usize,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// The bytes of the line, line feed included; cut if the line is longer than the limit.
    pub bytes: &'a [u8],
}

impl Line<'_> {
    /// Whether the line ends with a line feed.
    pub fn is_terminated(&self) -> bool {
        self.bytes.ends_with(b"\n")
    }
}

impl<R: BufRead> Lines<R> {
    /// Reads the lines of `reader`. A line of more than `limit` bytes comes in pieces of `limit + 1` bytes, all with its number.
    pub fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, buffer: Vec::new(), next_offset: 0, next_number: 1 }
    }

    /// The next line, or `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        self.reader.by_ref().take(self.limit as u64 + 1).read_until(b'\n', &mut self.buffer)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let line = Line { number: self.next_number, offset: self.next_offset, bytes: &self.buffer };
        self.next_offset += self.buffer.len() as u64;
        self.next_number += usize::from(line.is_terminated());
        Ok(Some(line))
    }

    /// Passes over the rest of a line that is longer than the limit, and gives it to `each` in pieces.
    pub fn skip_rest(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        if self.buffer.len() <= self.limit || self.buffer.ends_with(b"\n") {
            return Ok(());
        }
        loop {
            let piece = self.reader.fill_buf()?;
            let feed = piece.iter().position(|byte| *byte == b'\n');
            let length = feed.map_or(piece.len(), |at| at + 1);
            each(&piece[..length]);
            self.reader.consume(length);
            self.next_offset += length as u64;
            if feed.is_some() || length == 0 {
                self.next_number += 1;
                return Ok(());
            }
        }
    }
}
