//! The tensors of a checkpoint in its memory-mapped safetensors files. The files are untrusted: every offset and shape in a
//! header is checked against the file's length before any tensor byte is read.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype as FileDtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::checkpoint::{Bytes, Checkpoint, INDEX_FILE as INDEX, WEIGHTS_FILE as SINGLE};
use crate::device::{Dtype, TensorView};
use crate::error::{Error, Result};

/// Bytes of the header's length field, at the start of the file.
const PREFIX: usize = 8;
/// The longest header that the format allows, in bytes.
const LARGEST_HEADER: usize = 100_000_000;

/// A checkpoint's tensors by name.
#[derive(Debug)]
pub struct Weights {
    checkpoint: Checkpoint,
    shards: Vec<Arc<Shard>>,
    /// The file of each tensor that a file holds.
    tensors: HashMap<String, Arc<Shard>>,
    /// The file in which the index places each tensor; `None` if one file holds all.
    index: Option<BTreeMap<String, String>>,
}

/// One safetensors file.
#[derive(Debug)]
struct Shard {
    name: String,
    bytes: Bytes,
    header: Range<usize>,
    metadata: Metadata,
}

impl Weights {
    /// Maps model.safetensors, or else the shards that model.safetensors.index.json names, and checks their headers.
    ///
    /// As in transformers, the index says which files there are, and the files say which tensors they hold; of two
    /// tensors with one name, that of the last file counts. A file that is absent matters only if a tensor is missed.
    ///
    /// # Errors
    /// [`Error::File`] where no file is there, or one is truncated or damaged; [`Error::Io`] where one cannot be mapped.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        let mut weights =
            Self { checkpoint: checkpoint.clone(), shards: Vec::new(), tensors: HashMap::new(), index: None };
        if let Some(bytes) = checkpoint.find(SINGLE)? {
            weights.add(Shard::read(checkpoint, SINGLE, bytes)?);
            return Ok(weights);
        }
        weights.index = checkpoint.index()?;
        if weights.index.is_none() {
            if let Some(format) = checkpoint.foreign_format() {
                return Err(Error::file(checkpoint.path(""), format));
            }
            let message = format!("no such file, nor {INDEX}; the weights must be in safetensors format");
            return Err(Error::file(checkpoint.path(SINGLE), message));
        }
        for file in checkpoint.weight_files()? {
            if let Some(bytes) = checkpoint.find(&file)? {
                weights.add(Shard::read(checkpoint, &file, bytes)?);
            }
        }
        Ok(weights)
    }

    fn add(&mut self, shard: Shard) {
        let shard = Arc::new(shard);
        let names = shard.metadata.offset_keys().into_iter();
        self.tensors.extend(names.map(|name| (name, shard.clone())));
        self.shards.push(shard);
    }

    /// The tensor `name`, if there is one.
    fn find(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        let shard = self.tensors.get(name)?;
        Some((shard, shard.metadata.info(name)?))
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether most numbers of the matrices are bf16.
    pub fn are_bf16(&self) -> bool {
        let (mut in_bf16, mut others) = (0, 0);
        for info in self.tensors.keys().filter_map(|name| Some(self.find(name)?.1)) {
            if info.shape.len() > 1 {
                let numbers: usize = info.shape.iter().product();
                *(if info.dtype == FileDtype::BF16 { &mut in_bf16 } else { &mut others }) += numbers;
            }
        }
        in_bf16 > others
    }

    /// The tensor `name`, which must have this shape.
    ///
    /// # Errors
    /// [`Error::File`] where it is absent or of another shape or of an unsupported dtype.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView> {
        let (shard, info) = self.find(name).ok_or_else(|| self.missing(name))?;
        let complain = |message: String| Error::file(self.checkpoint.path(&shard.name), message);
        if info.shape != shape {
            let found = &info.shape;
            return Err(complain(format!(
                "tensor {name} has shape {found:?}; by config.json it should have {shape:?}"
            )));
        }
        let (start, end) = info.data_offsets;
        let (file, range) = (shard.bytes.clone(), shard.header.end + start..shard.header.end + end);
        let (dtype, file, range) = match info.dtype {
            FileDtype::BF16 => (Dtype::Bf16, file, range),
            FileDtype::F16 => (Dtype::F16, file, range),
            FileDtype::F32 => (Dtype::F32, file, range),
            FileDtype::F64 => {
                let numbers = narrowed(&file[range]);
                let length = numbers.len();
                (Dtype::F32, numbers, 0..length)
            }
            other => {
                return Err(complain(format!(
                    "tensor {name} has dtype {other:?}; supported: BF16, F16, F32, F64"
                )));
            }
        };
        self.checkpoint.count(range.len());
        Ok(TensorView { name: name.to_owned(), dtype, shape: shape.to_vec(), file, range })
    }

    /// Checks that nobody has written to the files since they were opened. A model that was read in part from one file
    /// and in part from another would decode nonsense.
    ///
    /// # Errors
    /// [`Error::Io`] if somebody has.
    pub fn check_unchanged(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.bytes.check_unchanged())
    }

    fn missing(&self, name: &str) -> Error {
        let (file, message) = match self.index.as_ref().and_then(|index| index.get(name)) {
            Some(file) if !self.checkpoint.has(file) => {
                (file.as_str(), format!("no such file, in which {INDEX} places tensor {name}; download it"))
            }
            Some(file) => (
                file.as_str(),
                format!("has no tensor {name}, which {INDEX} places there; download both again"),
            ),
            None => {
                let file = if self.index.is_some() { INDEX } else { SINGLE };
                (file, format!("has no tensor {name}, which config.json asks for"))
            }
        };
        Error::file(self.checkpoint.path(file), message)
    }
}

/// Numbers of 64 bits, which no device computes with, rounded to f32.
fn narrowed(numbers: &[u8]) -> Bytes {
    let (numbers, _) = numbers.as_chunks::<8>();
    let narrow = |number: &[u8; 8]| (f64::from_le_bytes(*number) as f32).to_le_bytes();
    Bytes::Owned(numbers.iter().flat_map(narrow).collect())
}

impl Shard {
    fn read(checkpoint: &Checkpoint, file: &str, bytes: Bytes) -> Result<Self> {
        let damaged =
            |what: &str| Error::file(checkpoint.path(file), format!("{what}; download the file again"));
        let truncated = || damaged(&format!("is truncated: it ends after {} bytes", bytes.len()));
        let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Err(truncated()) };
        let length = u64::from_le_bytes(*prefix);
        if length > LARGEST_HEADER as u64 {
            return Err(damaged("is damaged, or not a safetensors file: its header's length is absurd"));
        }
        let header = PREFIX..PREFIX + length as usize;
        let text = bytes.get(header.clone()).ok_or_else(truncated)?;
        // Checks that the tensors lie one after the other, without gaps, each as long as its dtype and shape say.
        let metadata: Metadata = serde_json::from_slice(text)
            .map_err(|error| damaged(&format!("is damaged: its header is invalid: {error}")))?;
        let room = bytes.len() - header.end;
        if metadata.data_len() > room {
            return Err(truncated());
        }
        if metadata.data_len() < room {
            return Err(damaged("is damaged: it is longer than its header says"));
        }
        Ok(Self { name: file.to_owned(), bytes, header, metadata })
    }
}
