//! The rows of a JSONL file. All are checked at the start; each is read again when it is decoded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::faults::Faults;
use super::file_kind::{self, LOOKED_AT};
use super::id::Id;
use super::lines::{Line, Lines};
use super::manifest::InputFingerprint;
use super::messages::FinalAnswer;
use super::prompt::{BadLine, InputRow, id_of_line};
use super::remarks::Remark;
use super::schema::{bounded, excerpt};
use crate::checkpoint::hex;
use crate::error::{Error, Result};

/// The longest line of an input, in bytes. More text would exceed every model's window.
pub const MAX_LINE: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How an input is read.
#[derive(Debug, Clone, Default)]
pub struct InputOptions {
    /// Takes this many rows from the start and leaves the rest of the file unread.
    pub limit: Option<usize>,
    /// Makes a row of each invalid line, whose body is [`Body::Invalid`](super::Body::Invalid).
    pub skip_invalid: bool,
    /// What becomes of conversations that end with the assistant's turn.
    pub final_answer: FinalAnswer,
}

/// An input file. It remembers the place of each line and a hash of its id, some 60 bytes per line.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    file: File,
    options: InputOptions,
    spans: Vec<Span>,
    rows: HashMap<IdHash, u32>,
    /// The rows whose id is not the line's own, because an earlier line has it.
    renamed: HashMap<u32, Renamed>,
    /// What is wrong with the invalid lines whose ids are not their own, by row.
    invented: HashMap<u32, String>,
    /// What is to be said, and the first line that it is true of.
    remarks: Vec<(Remark, usize)>,
    hash: String,
    /// Bytes of the file up to the end of the last row that is taken.
    end: u64,
}

#[derive(Debug)]
struct Span {
    offset: u64,
    length: usize,
    line: usize,
    checksum: u64,
    kind: Kind,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Row,
    Invalid,
    /// Invalid, because it is longer than [`MAX_LINE`].
    Long,
}

#[derive(Debug)]
struct Renamed {
    id: Id,
    message: String,
}

/// 128 bits of SHA-256: two ids of a billion share one with a probability under 1e-20.
type IdHash = [u8; 16];

impl Input {
    /// Reads the whole of `path` and checks every line.
    ///
    /// # Errors
    /// Those of [`Input::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &InputOptions::default())
    }

    /// Reads `path` up to the limit and checks every line.
    ///
    /// Blank lines, a byte order mark at the start, CRLF, and a last line without a line feed are accepted.
    ///
    /// # Errors
    /// Unless invalid lines are skipped, [`Error::Line`] or [`Error::Lines`] for the lines that are no prompts or whose
    /// id an earlier line has; [`Error::File`] if the file is no JSON lines, holds no prompts or cannot be read twice (a
    /// pipe).
    pub fn open_with(path: impl AsRef<Path>, options: &InputOptions) -> Result<Self> {
        let path = path.as_ref();
        if options.limit == Some(0) {
            return Err(Error::Setting("limit is 0; it must be 1 or more".into()));
        }
        // The check comes before opening, because opening a pipe waits for its writer.
        let metadata = fs::metadata(path).map_err(Error::io(path, "cannot open"))?;
        if metadata.is_dir() {
            return Err(Error::file(path, "a folder; give a JSONL file of prompts"));
        }
        if !metadata.is_file() {
            return Err(Error::file(
                path,
                "not a regular file, and prompts are read twice; save them to a file",
            ));
        }
        let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
        let mut start = vec![0; LOOKED_AT];
        let length = file.read_at(&mut start, 0).map_err(Error::io(path, "cannot read"))?;
        if let Some(message) = file_kind::refuse(path, &start[..length]) {
            return Err(Error::file(path, message));
        }
        let mut input = Self {
            path: path.to_owned(),
            file,
            options: options.clone(),
            spans: Vec::new(),
            rows: HashMap::new(),
            renamed: HashMap::new(),
            invented: HashMap::new(),
            remarks: Vec::new(),
            hash: String::new(),
            end: 0,
        };
        input.scan()?;
        Ok(input)
    }

    fn scan(&mut self) -> Result<()> {
        let file = self.file.try_clone().map_err(Error::io(&self.path, "cannot open"))?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 20, file), MAX_LINE);
        let mut hash = Sha256::new();
        let mut faults = Faults::default();
        let limit = self.options.limit.unwrap_or(usize::MAX);
        while self.spans.len() + faults.count() < limit {
            let Some(line) = lines.next().map_err(Error::io(&self.path, "cannot read"))? else { break };
            hash.update(line.bytes);
            self.end = line.offset + line.bytes.len() as u64;
            if let Err((number, message)) = self.add(line) {
                faults.add(number, &message);
            }
            let end = &mut self.end;
            let rest = lines.skip_rest(|piece| {
                hash.update(piece);
                *end += piece.len() as u64;
            });
            rest.map_err(Error::io(&self.path, "cannot read"))?;
        }
        faults.result(&self.path)?;
        if self.spans.is_empty() {
            return Err(Error::file(
                &self.path,
                "holds no prompts; give a JSON object with an instruction a line",
            ));
        }
        self.hash = hex(&hash.finalize());
        Ok(())
    }

    /// Adds the row of a line; an error is the line's number and what is wrong, unless invalid lines are skipped.
    fn add(&mut self, line: Line) -> std::result::Result<(), (usize, String)> {
        let start = if line.number == 1 && line.bytes.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let is_long = line.bytes.len() > MAX_LINE;
        let bytes = &line.bytes[start..];
        let bytes = if is_long { bytes } else { bytes.trim_ascii_end() };
        if bytes.is_empty() {
            return Ok(());
        }
        let mut remarks = Vec::new();
        let parsed = self.parse(bytes, line.number, is_long, &mut remarks);
        let row = self.spans.len() as u32;
        if let Ok(prompt) = &parsed {
            self.give_way(&prompt.id);
        }
        let is_twice = matches!(&parsed, Ok(prompt) if self.rows.contains_key(&id_hash(prompt.id.key())));
        let (kind, message) = match parsed {
            Ok(prompt) => match self.rows.entry(id_hash(prompt.id.key())) {
                Entry::Vacant(entry) => {
                    entry.insert(row);
                    self.note(&remarks, line.number);
                    (Kind::Row, None)
                }
                Entry::Occupied(entry) => {
                    let first = self.spans[*entry.get() as usize].line;
                    (Kind::Invalid, Some((None, twice(&prompt.id, first))))
                }
            },
            Err(BadLine { id, message }) => {
                (if is_long { Kind::Long } else { Kind::Invalid }, Some((id, message)))
            }
        };
        if let Some((id, message)) = message {
            if !self.options.skip_invalid {
                return Err((line.number, message));
            }
            self.name_invalid(row, id.as_ref(), line.number, &message, is_twice);
        }
        self.spans.push(Span {
            offset: line.offset + start as u64,
            length: bytes.len(),
            line: line.number,
            checksum: checksum(bytes),
            kind,
        });
        Ok(())
    }

    fn parse(
        &self,
        bytes: &[u8],
        line: usize,
        is_long: bool,
        remarks: &mut Vec<Remark>,
    ) -> std::result::Result<InputRow, BadLine> {
        if is_long {
            return Err(too_long(bytes).into());
        }
        InputRow::parse(bytes, line, self.options.final_answer, remarks)
    }

    /// Gives another id to an invalid line that was given this one, which is that of a row now.
    fn give_way(&mut self, id: &Id) {
        let taken = id_hash(id.key());
        let Some(&row) = self.rows.get(&taken) else { return };
        let Some(message) = self.invented.remove(&row) else { return };
        let line = self.spans[row as usize].line;
        self.name_invalid(row, None, line, &message, true);
        self.rows.remove(&taken);
    }

    /// Gives the row of an invalid line an id that no earlier line has: its own, or one made of its number.
    fn name_invalid(&mut self, row: u32, own: Option<&Id>, line: usize, message: &str, is_twice: bool) {
        let further = (2..).map(|number| Id::Text(format!("conv_{line}_{number}")));
        let names = own.cloned().into_iter().chain([id_of_line(line)]).chain(further);
        let mut free = names.filter(|id| !self.rows.contains_key(&id_hash(id.key())));
        let Some(id) = free.next() else { return };
        self.rows.insert(id_hash(id.key()), row);
        if own.is_none_or(|own| id != *own) {
            self.invented.insert(row, bounded(message));
        }
        // Reading the line again gives its own id or that of its number. Alone, it may be a prompt.
        if is_twice || own.map_or_else(|| id != id_of_line(line), |own| id != *own) {
            self.renamed.insert(row, Renamed { id, message: bounded(message) });
        }
    }

    fn note(&mut self, remarks: &[Remark], line: usize) {
        for remark in remarks {
            if self.remarks.iter().all(|(known, _)| known != remark) {
                self.remarks.push((*remark, line));
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Always false: an input without rows is not opened.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether row `row` is a prompt. Only an input that skips invalid lines has rows that are none.
    ///
    /// # Panics
    /// If `row` is not below [`Input::len`].
    pub fn is_prompt(&self, row: usize) -> bool {
        self.spans[row].kind == Kind::Row
    }

    /// What the user should know about how the rows are understood, one line of text each.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.remarks.iter().map(|(remark, line)| remark.describe(*line))
    }

    /// Reads row `row`, counted from 0, from the file again.
    ///
    /// # Errors
    /// [`Error::Line`] if the line has changed since [`Input::open`].
    ///
    /// # Panics
    /// If `row` is not below [`Input::len`].
    pub fn read(&self, row: usize) -> Result<InputRow> {
        let span = &self.spans[row];
        let changed = || {
            let message =
                "has changed since the run began; do not edit an input in use, and run the command again";
            Error::line(&self.path, span.line, message)
        };
        let mut bytes = vec![0; span.length];
        match self.file.read_exact_at(&mut bytes, span.offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(changed()),
            result => result.map_err(Error::io(&self.path, "cannot read"))?,
        }
        if checksum(&bytes) != span.checksum {
            return Err(changed());
        }
        if let Some(Renamed { id, message }) = self.renamed.get(&(row as u32)) {
            return Ok(InputRow::invalid(id.clone(), span.line, message));
        }
        let parsed = self.parse(&bytes, span.line, span.kind == Kind::Long, &mut Vec::new());
        parsed.or_else(|BadLine { id, message }| {
            let id = id.unwrap_or_else(|| id_of_line(span.line));
            Ok(InputRow::invalid(id, span.line, &bounded(&message)))
        })
    }

    /// The row whose prompt's [`Id::key`](super::Id::key) is `key`.
    pub fn row(&self, key: &str) -> Option<usize> {
        self.rows.get(&id_hash(key)).map(|row| *row as usize)
    }

    /// SHA-256 of the file, in hex; with a limit, of the part up to the end of the last row that is taken.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The fingerprint for the manifest.
    pub fn fingerprint(&self) -> InputFingerprint {
        InputFingerprint {
            path: self.path.display().to_string(),
            sha256: self.hash.clone(),
            prompts: self.len(),
            limit: self.options.limit,
            bytes: self.options.limit.map(|_| self.end),
        }
    }

    /// Whether this input begins with the rows of an earlier input that had a limit, and has as many or more.
    pub(super) fn extends(&self, earlier: &InputFingerprint) -> Result<bool> {
        let Some(bytes) = earlier.bytes.filter(|bytes| *bytes <= self.end) else { return Ok(false) };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < bytes {
            let wanted = buffer.len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
            let length = self.file.read_at(&mut buffer[..wanted], offset);
            let length = length.map_err(Error::io(&self.path, "cannot read"))?;
            if length == 0 {
                return Ok(false);
            }
            hash.update(&buffer[..length]);
            offset += length as u64;
        }
        Ok(hex(&hash.finalize()) == earlier.sha256)
    }

    /// Whether `other` is this very file, whatever its path.
    pub(super) fn is(&self, other: &Metadata) -> bool {
        self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (other.dev(), other.ino()))
    }
}

fn too_long(bytes: &[u8]) -> String {
    // A tail of NUL bytes may be longer than any line. Saying so tells more than the length.
    if bytes.contains(&0) {
        return "holds NUL bytes (a tail lost in a crash, or UTF-16?); write the file again, as UTF-8"
            .to_owned();
    }
    format!("longer than {} MiB; shorten or remove the line", MAX_LINE >> 20)
}

fn twice(id: &Id, first: usize) -> String {
    let id = excerpt(id.key());
    format!(
        "id {id:?} equals that of line {first}: ids are compared as text; make ids unique or remove one line"
    )
}

fn id_hash(key: &str) -> IdHash {
    let hash = Sha256::digest(key);
    std::array::from_fn(|at| hash[at])
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
