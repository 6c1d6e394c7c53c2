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
    /// [`E4m3`](super::e4m3::E4m3), a scale for each row: what a device makes of others.
    F8E4m3,
}

/// In what numbers a model is kept on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Of the layers' matrices.
    pub weights: Dtype,
    /// Of keys and values.
    pub cache: Dtype,
}

impl Format {
    /// All in `dtype`.
    pub fn of(dtype: Dtype) -> Self {
        Self { weights: dtype, cache: dtype }
    }

    /// Of activations and of what has no format of its own: embeddings, the head, norms, biases.
    pub fn working(self) -> Dtype {
        if self.weights == Dtype::F32 { Dtype::F32 } else { Dtype::Bf16 }
    }
}

impl Dtype {
    /// What checkpoints and settings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F8E4m3 => "fp8",
        }
    }

    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F8E4m3 => 1,
        }
    }

    /// Bytes of a row of `width` elements, with its scale where it has one.
    pub fn row_bytes(self, width: usize) -> usize {
        width * self.size() + if self == Self::F8E4m3 { size_of::<f32>() } else { 0 }
    }
}
