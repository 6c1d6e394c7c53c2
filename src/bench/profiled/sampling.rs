//! What sampling moves and computes.

use super::SINGLE;
use crate::device::inspect::Inspect;
use crate::device::{AmateurLogits, ExpertLogits, Projections, WeightSize};

/// What is known of a sampling before it runs.
pub struct Sampling {
    outputs: usize,
    /// Of the expert's logits.
    expert_width: usize,
    amateur: Amateur,
    /// Bytes of an activation.
    activation: usize,
}

/// How the amateur's logits are given.
enum Amateur {
    /// Not at all.
    None,
    /// By a later step.
    Later,
    /// All of them, of this width.
    Computed(usize),
    /// As a product with this LM head.
    Unprojected(WeightSize),
}

impl Sampling {
    /// Of `outputs` outputs.
    pub fn of<D: Inspect>(
        device: &D,
        outputs: usize,
        expert: &ExpertLogits<'_, D::Tensor>,
        amateur: &AmateurLogits<'_, D::Tensor, D::Weight>,
    ) -> Self {
        let (ExpertLogits::Computed(logits) | ExpertLogits::Deferred(logits)) = expert;
        let amateur = match amateur {
            AmateurLogits::Unneeded => Amateur::None,
            AmateurLogits::Later { .. } => Amateur::Later,
            AmateurLogits::Computed(logits) => Amateur::Computed(device.width(logits)),
            AmateurLogits::Unprojected(amateur) => Amateur::Unprojected(device.weight_size(amateur.lm_head)),
        };
        let activation = device.info().dtype.size();
        Self { outputs, expert_width: device.width(logits), amateur, activation }
    }

    /// What a report calls it.
    pub fn name(&self) -> &'static str {
        match self.amateur {
            Amateur::Later => "expert_sample",
            _ => "contrast_sample",
        }
    }

    /// The bytes that it moved at least, and the operations of its products; `projections` says which logits it computed.
    pub fn cost(&self, projections: impl FnOnce() -> Projections) -> (usize, usize) {
        let expert = self.outputs * self.expert_width * SINGLE;
        match self.amateur {
            Amateur::None | Amateur::Later => (expert, 0),
            Amateur::Computed(width) => (expert + self.outputs * width * SINGLE, 0),
            Amateur::Unprojected(lm_head) => {
                let Projections { gathered, full } = projections();
                // Of the LM head the candidates' rows, or all of it; logits that are written are read again.
                let read =
                    if full > 0 { lm_head.bytes } else { gathered * lm_head.columns * self.activation };
                let hidden = self.outputs * lm_head.columns * self.activation;
                let bytes = hidden + read + expert + 2 * full * lm_head.rows * SINGLE;
                (bytes, 2 * lm_head.columns * (gathered + full * lm_head.rows))
            }
        }
    }
}
