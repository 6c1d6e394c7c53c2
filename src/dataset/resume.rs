//! Finds what an earlier run left in the output.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::file_kind::quoted;
use super::id::Id;
use super::input::Input;
use super::lines::{Line, Lines};
use super::record::MAX_RECORD;
use super::schema::excerpt;
use crate::error::{Error, Result};

/// The beginning of every record.
const OPENING: &[u8] = b"{\"id\":";

/// The samples of input rows that have a record.
#[derive(Debug, Clone)]
pub struct Done {
    samples: u32,
    /// One bit per sample, `[rows, samples]`.
    bits: Vec<u64>,
    recovery: Recovery,
    /// Records whose response the expert ended.
    finished: usize,
}

/// The state of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Whole records.
    pub records: usize,
    /// How many of these are prompts that could not be answered.
    pub failed: usize,
    /// Bytes of a torn end that were cut off.
    pub cut_bytes: u64,
}

impl Done {
    fn nothing(rows: usize, samples: u32) -> Self {
        let bits = (rows * samples as usize).div_ceil(64);
        Self { samples, bits: vec![0; bits], recovery: Recovery::default(), finished: 0 }
    }

    /// Whether `sample` of `row` has its record.
    ///
    /// # Panics
    /// If the input has no such row.
    pub fn contains(&self, row: usize, sample: u32) -> bool {
        let (word, bit) = self.place(row, sample);
        self.bits[word] & bit != 0
    }

    /// The state of the output when it was opened.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// How many of the records have a response that the expert ended.
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// Whether the output is new.
    fn insert(&mut self, row: usize, sample: u32) -> bool {
        let (word, bit) = self.place(row, sample);
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }

    fn remove(&mut self, row: usize, sample: u32) {
        let (word, bit) = self.place(row, sample);
        self.bits[word] &= !bit;
    }

    fn place(&self, row: usize, sample: u32) -> (usize, u64) {
        let at = row * self.samples as usize + sample as usize;
        (at / 64, 1 << (at % 64))
    }
}

/// The part of a record that resuming needs.
#[derive(Deserialize)]
struct Head {
    id: Id,
    #[serde(default)]
    sample_index: Option<u32>,
    #[serde(default)]
    error: Option<IgnoredAny>,
    #[serde(default)]
    is_completed: bool,
}

impl Head {
    /// The number of the sample, where the line is known to be a record of the run.
    fn sample(&self) -> u32 {
        self.sample_index.unwrap_or(0)
    }
}

/// Reads the output at `path`; returns which samples are done, and the length of the whole records in bytes.
///
/// The rest after them is a torn end if no part of it is a record and all of it can be what a crash leaves of
/// records: cut short, or filled with NUL bytes.
pub(super) fn recover(path: &Path, file: &File, input: &Input, samples: u32) -> Result<(Done, u64)> {
    let mut done = Done::nothing(input.len(), samples);
    let mut whole = 0;
    // The first line after the whole records, and whether it has NUL bytes.
    let mut torn: Option<(usize, bool)> = None;
    let mut lines = Lines::new(BufReader::with_capacity(1 << 20, file), MAX_RECORD);
    while let Some(line) = lines.next().map_err(Error::io(path, "cannot read"))? {
        let end = line.offset + line.bytes.len() as u64;
        match head(line) {
            Some(head) if torn.is_none() => {
                add(&mut done, input, &head, || removal(path, line.number))
                    .map_err(|message| Error::line(path, line.number, message))?;
                whole = end;
            }
            None if may_be_torn(line) => {
                torn.get_or_insert((line.number, line.bytes.contains(&0)));
            }
            _ => {
                let (number, has_nul) = torn.unwrap_or((line.number, line.bytes.contains(&0)));
                return Err(Error::line(path, number, damage(path, number, has_nul)));
            }
        }
        done.recovery.cut_bytes = end - whole;
    }
    Ok((done, whole))
}

fn damage(path: &Path, number: usize, has_nul: bool) -> String {
    let nul = if has_nul { " (it has NUL bytes, which a crash or another program left)" } else { "" };
    format!(
        "not a record{nul}, and not the torn end of a file either; if it is a record that was damaged, remove the line \
         and run again, and the record is made again: {}",
        removal(path, number)
    )
}

/// The command that removes a line.
fn removal(path: &Path, number: usize) -> String {
    format!("sed -i {number}d {}", quoted(path))
}

/// Copies the records at `from`, all of them whole, to `to`, but for those of errors, which are no longer done then.
/// Returns the length of the copy in bytes.
pub(super) fn copy_answered(
    from: (&Path, &File),
    to: (&Path, &File),
    input: &Input,
    done: &mut Done,
) -> Result<u64> {
    let mut reader = from.1;
    reader.rewind().map_err(Error::io(from.0, "cannot read"))?;
    let mut lines = Lines::new(BufReader::with_capacity(1 << 20, reader), MAX_RECORD);
    let mut writer = BufWriter::with_capacity(1 << 20, to.1);
    let mut length = 0;
    while let Some(line) = lines.next().map_err(Error::io(from.0, "cannot read"))? {
        let head = head(line).and_then(|head| Some((input.row(head.id.key())?, head)));
        let Some((row, head)) = head.filter(|(_, head)| head.sample() < done.samples) else {
            let message = "has changed since the run began; run the command again";
            return Err(Error::line(from.0, line.number, message));
        };
        if head.error.is_some() {
            done.remove(row, head.sample());
            done.recovery.records -= 1;
            done.recovery.failed -= 1;
        } else {
            writer.write_all(line.bytes).map_err(Error::io(to.0, "cannot write"))?;
            length += line.bytes.len() as u64;
        }
    }
    writer.flush().map_err(Error::io(to.0, "cannot write"))?;
    Ok(length)
}

fn head(line: Line) -> Option<Head> {
    let text = std::str::from_utf8(line.bytes).ok().filter(|_| line.is_terminated())?;
    serde_json::from_str(text).ok()
}

/// Whether a crash may have left these bytes of a record. A line that is whole JSON is none: it is somebody's.
pub(super) fn may_be_torn(line: Line) -> bool {
    if line.is_terminated() && serde_json::from_slice::<IgnoredAny>(line.bytes).is_ok() {
        return false;
    }
    let written = line.bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    written.starts_with(OPENING) || OPENING.starts_with(written)
}

/// Marks the record's sample as done. An error says what is wrong and, where the line is to be removed, the command
/// `removal`.
fn add(
    done: &mut Done,
    input: &Input,
    head: &Head,
    removal: impl FnOnce() -> String,
) -> std::result::Result<(), String> {
    let id = excerpt(head.id.key());
    let Some(row) = input.row(head.id.key()) else {
        return Err(format!(
            "id {id:?} is not in the input; give another output, or the input that this one is of, or remove the line: {}",
            removal()
        ));
    };
    let sample = match (done.samples, head.sample_index) {
        (1, None) => 0,
        (samples, Some(sample)) if samples > 1 && sample < samples => sample,
        (samples, found) => {
            let found = found.map_or("none".to_owned(), |sample| sample.to_string());
            return Err(format!(
                "sample_index is {found} in a run of {samples} samples a prompt; remove the line: {}",
                removal()
            ));
        }
    };
    if !done.insert(row, sample) {
        return Err(format!(
            "id {id:?} has a record on an earlier line already; remove one of them: {}",
            removal()
        ));
    }
    done.recovery.records += 1;
    done.recovery.failed += usize::from(head.error.is_some());
    done.finished += usize::from(head.is_completed);
    Ok(())
}
