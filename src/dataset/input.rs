//! The rows of a JSONL file. All are checked at the start; each is read again when it is decoded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::lines::{Line, Lines};
use super::manifest::InputFingerprint;
use super::prompt::InputRow;
use super::schema::excerpt;
use crate::checkpoint::hex;
use crate::error::{Error, Result};

/// The longest line of an input, in bytes. More text would exceed every model's window.
pub const MAX_LINE: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An input file. It remembers the place of each line and a hash of its id, some 60 bytes per line.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    file: File,
    spans: Vec<Span>,
    rows: HashMap<IdHash, u32>,
    hash: String,
}

#[derive(Debug)]
struct Span {
    offset: u64,
    length: usize,
    line: usize,
    checksum: u64,
}

/// 128 bits of SHA-256: two ids of a billion share one with a probability under 1e-20.
type IdHash = [u8; 16];

impl Input {
    /// Reads the whole of `path` and checks every line.
    ///
    /// Blank lines, a byte order mark at the start, CRLF, and a last line without a line feed are accepted.
    ///
    /// # Errors
    /// [`Error::Line`] for the first line that is not a prompt or whose id an earlier line has; [`Error::File`]
    /// if the file holds no prompts or cannot be read twice (a pipe).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
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
        let mut input = Self {
            path: path.to_owned(),
            file,
            spans: Vec::new(),
            rows: HashMap::new(),
            hash: String::new(),
        };
        input.scan()?;
        Ok(input)
    }

    fn scan(&mut self) -> Result<()> {
        let file = self.file.try_clone().map_err(Error::io(&self.path, "cannot open"))?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 20, file), MAX_LINE);
        let mut hash = Sha256::new();
        while let Some(line) = lines.next().map_err(Error::io(&self.path, "cannot read"))? {
            hash.update(line.bytes);
            self.add(line)?;
        }
        if self.spans.is_empty() {
            return Err(Error::file(
                &self.path,
                "holds no prompts; give a JSON object with an instruction a line",
            ));
        }
        self.hash = hex(&hash.finalize());
        Ok(())
    }

    fn add(&mut self, line: Line) -> Result<()> {
        let start = if line.number == 1 && line.bytes.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let bytes = line.bytes[start..].trim_ascii_end();
        if bytes.is_empty() && line.bytes.len() <= MAX_LINE {
            return Ok(());
        }
        let fault = |message: String| Error::line(&self.path, line.number, message);
        let prompt = match InputRow::parse(bytes, line.number) {
            // A tail of NUL bytes may be longer than any line. Saying so tells more than the length.
            Err(message) if line.bytes.len() <= MAX_LINE || bytes.contains(&0) => return Err(fault(message)),
            _ if line.bytes.len() > MAX_LINE => {
                return Err(fault(format!("longer than {} MiB; shorten or remove the line", MAX_LINE >> 20)));
            }
            prompt => prompt.map_err(fault)?,
        };
        match self.rows.entry(id_hash(prompt.id.key())) {
            Entry::Occupied(entry) => {
                let first = self.spans[*entry.get() as usize].line;
                let id = excerpt(prompt.id.key());
                let message =
                    format!("id {id:?} is that of line {first} too; make ids unique or remove one line");
                return Err(fault(message));
            }
            Entry::Vacant(entry) => entry.insert(self.spans.len() as u32),
        };
        self.spans.push(Span {
            offset: line.offset + start as u64,
            length: bytes.len(),
            line: line.number,
            checksum: checksum(bytes),
        });
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Always false: an input without rows is not opened.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
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
        InputRow::parse(&bytes, span.line).map_err(|message| Error::line(&self.path, span.line, message))
    }

    /// The row whose prompt's [`Id::key`](super::Id::key) is `key`.
    pub fn row(&self, key: &str) -> Option<usize> {
        self.rows.get(&id_hash(key)).map(|row| *row as usize)
    }

    /// SHA-256 of the file, in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The fingerprint for the manifest.
    pub fn fingerprint(&self) -> InputFingerprint {
        InputFingerprint {
            path: self.path.display().to_string(),
            sha256: self.hash.clone(),
            prompts: self.len(),
        }
    }

    /// Whether `other` is this very file, whatever its path.
    pub(super) fn is(&self, other: &Metadata) -> bool {
        self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (other.dev(), other.ino()))
    }
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
