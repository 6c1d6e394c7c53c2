//! Number formats of tensors, and of a model on a device.

/// Number format of a tensor, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// bfloat16
    Bf16,
    /// IEEE half
    F16,
    /// IEEE single
    F32,
    /// [`E4m3`](super::e4m3::E4m3) with a scale per row. Devices convert weights and caches to it; checkpoints do not
    /// hold it.
    F8E4m3,
}

/// The number formats of a model on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The format of the layers' matrices.
    pub weights: Dtype,
    /// The format of cached keys and values.
    pub cache: Dtype,
}

impl Format {
    /// One format for everything.
    pub fn of(dtype: Dtype) -> Self {
        Self { weights: dtype, cache: dtype }
    }

    /// The format of activations and of weights that have no format of their own: embeddings, the LM head, norms,
    /// biases.
    pub fn working(self) -> Dtype {
        if self.weights == Dtype::F32 { Dtype::F32 } else { Dtype::Bf16 }
    }
}

impl Dtype {
    /// The name in checkpoints and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F8E4m3 => "fp8",
        }
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F8E4m3 => 1,
        }
    }

    /// Bytes of a row of `width` elements, with its scale if it has one.
    pub fn row_bytes(self, width: usize) -> usize {
        width * self.size() + if self == Self::F8E4m3 { size_of::<f32>() } else { 0 }
    }
}
