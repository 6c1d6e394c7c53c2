//! The tensors of a checkpoint in its memory-mapped safetensors files. The files are untrusted: every offset and shape in a
//! header is checked against the file's length before any tensor byte is read.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

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
    /// The files, by name.
    shards: BTreeMap<String, Shard>,
    /// The file of each tensor.
    files: HashMap<String, String>,
}

/// One safetensors file.
#[derive(Debug)]
struct Shard {
    bytes: Bytes,
    header: Range<usize>,
    metadata: Metadata,
}

impl Weights {
    /// Maps model.safetensors, or the shards that model.safetensors.index.json names, and checks their headers.
    ///
    /// # Errors
    /// [`Error::File`] where a file is absent, truncated or damaged; [`Error::Io`] where one cannot be mapped.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        let mut weights =
            Self { checkpoint: checkpoint.clone(), shards: BTreeMap::new(), files: HashMap::new() };
        if let Some(bytes) = checkpoint.find(SINGLE)? {
            let shard = Shard::read(checkpoint, SINGLE, bytes)?;
            weights.files =
                shard.metadata.offset_keys().into_iter().map(|name| (name, SINGLE.to_owned())).collect();
            weights.shards.insert(SINGLE.to_owned(), shard);
        } else {
            for (name, file) in read_index(checkpoint)? {
                weights.add(name, file)?;
            }
        }
        Ok(weights)
    }

    /// Records that the index places the tensor `name` in `file`.
    fn add(&mut self, name: String, file: String) -> Result<()> {
        if !self.shards.contains_key(&file) {
            let shard = Shard::read(&self.checkpoint, &file, read_shard(&self.checkpoint, &file)?)?;
            self.shards.insert(file.clone(), shard);
        }
        if self.shards[&file].metadata.info(&name).is_none() {
            let message = format!("has no tensor {name:?}, which {INDEX} places there; download both again");
            return Err(Error::file(self.checkpoint.path(&file), message));
        }
        self.files.insert(name, file);
        Ok(())
    }

    /// The tensor `name`, if there is one.
    fn find(&self, name: &str) -> Option<(&str, &Shard, &TensorInfo)> {
        let file = self.files.get(name)?;
        let shard = self.shards.get(file)?;
        Some((file, shard, shard.metadata.info(name)?))
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The tensor `name`, which must have this shape.
    ///
    /// # Errors
    /// [`Error::File`] where it is absent or of another shape or of an unsupported dtype.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView> {
        let (file, shard, info) = self.find(name).ok_or_else(|| self.missing(name))?;
        let complain = |message: String| Error::file(self.checkpoint.path(file), message);
        if info.shape != shape {
            let found = &info.shape;
            return Err(complain(format!(
                "tensor {name} has shape {found:?}; by config.json it should have {shape:?}"
            )));
        }
        let dtype = match info.dtype {
            FileDtype::BF16 => Dtype::Bf16,
            FileDtype::F16 => Dtype::F16,
            FileDtype::F32 => Dtype::F32,
            other => {
                return Err(complain(format!(
                    "tensor {name} has dtype {other:?}; supported: BF16, F16, F32"
                )));
            }
        };
        let (start, end) = info.data_offsets;
        self.checkpoint.count(end - start);
        Ok(TensorView {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            file: shard.bytes.clone(),
            range: shard.header.end + start..shard.header.end + end,
        })
    }

    /// Tensors with these names and shapes, which will be joined and so must share one dtype.
    ///
    /// # Errors
    /// As [`Weights::tensor`], and where a dtype differs from the first one's.
    pub fn joined(&self, parts: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<Vec<TensorView>> {
        let tensors: Vec<_> =
            parts.into_iter().map(|(name, shape)| self.tensor(&name, &shape)).collect::<Result<_>>()?;
        for pair in tensors.windows(2) {
            let [a, b] = pair else { continue };
            if a.dtype != b.dtype {
                let file = self.files.get(&b.name).map_or(SINGLE, String::as_str);
                return Err(Error::file(
                    self.checkpoint.path(file),
                    format!(
                        "tensor {} has dtype {:?} and {} has {:?}; they should agree",
                        b.name, b.dtype, a.name, a.dtype
                    ),
                ));
            }
        }
        Ok(tensors)
    }

    fn missing(&self, name: &str) -> Error {
        let file = if self.shards.contains_key(SINGLE) { SINGLE } else { INDEX };
        Error::file(self.checkpoint.path(file), format!("has no tensor {name}, which config.json asks for"))
    }
}

impl Shard {
    fn read(checkpoint: &Checkpoint, file: &str, bytes: Bytes) -> Result<Self> {
        let damaged =
            |what: &str| Error::file(checkpoint.path(file), format!("{what}; download the file again"));
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(Error::file(
                checkpoint.path(file),
                "is a Git LFS pointer, not the file itself; run git lfs pull",
            ));
        }
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
        Ok(Self { bytes, header, metadata })
    }
}

fn read_index(checkpoint: &Checkpoint) -> Result<BTreeMap<String, String>> {
    checkpoint.index()?.ok_or_else(|| {
        let message = format!("no such file, nor {INDEX}; the weights must be in safetensors format");
        Error::file(checkpoint.path(SINGLE), message)
    })
}

fn read_shard(checkpoint: &Checkpoint, file: &str) -> Result<Bytes> {
    checkpoint.find(file)?.ok_or_else(|| {
        Error::file(checkpoint.path(file), format!("no such file, which {INDEX} names; download it"))
    })
}
