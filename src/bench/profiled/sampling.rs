//! Counts the bytes that sampling moves and the arithmetic that it does.

use super::SINGLE;
use crate::bench::ceilings::Work;
use crate::device::inspect::Inspect;
use crate::device::{AmateurLogits, ExpertLogits, Projections, WeightSize};

/// The properties of a sampling that are known before it runs.
pub struct Sampling {
    outputs: usize,
    /// Width of the expert's logits.
    expert_width: usize,
    amateur: Amateur,
    /// Bytes per activation.
    activation: usize,
}

/// The form in which sampling receives the amateur's logits.
enum Amateur {
    /// No output needs them.
    None,
    /// A later step computes them.
    Later,
    /// All of them are computed; the number is their width.
    Computed(usize),
    /// Sampling computes the logits that it needs, as products with this `lm_head`.
    Unprojected(WeightSize),
}

impl Sampling {
    /// Describes a sampling of `outputs` outputs.
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

    /// The name of the operation in reports.
    pub fn name(&self) -> &'static str {
        match self.amateur {
            Amateur::Later => "expert_sample",
            _ => "contrast_sample",
        }
    }

    /// The fewest bytes that it moves, and the operations of its products. `projections` gives the number of logits
    /// that it computed.
    pub fn work(&self, projections: impl FnOnce() -> Projections) -> Work {
        let expert = self.outputs * self.expert_width * SINGLE;
        let of_logits = |bytes| Work { bytes, operations: 0, streams: false };
        match self.amateur {
            Amateur::None | Amateur::Later => of_logits(expert),
            Amateur::Computed(width) => of_logits(expert + self.outputs * width * SINGLE),
            Amateur::Unprojected(lm_head) => {
                let Projections { gathered, full } = projections();
                // Gathering reads only the candidates' rows of the lm_head; a full product reads all of it. Full
                // logits are written and read again.
                let read =
                    if full > 0 { lm_head.bytes } else { gathered * lm_head.columns * self.activation };
                let hidden = self.outputs * lm_head.columns * self.activation;
                let logits = expert + 2 * full * lm_head.rows * SINGLE;
                Work {
                    bytes: hidden + read + logits,
                    operations: 2 * lm_head.columns * (gathered + full * lm_head.rows),
                    streams: read > logits,
                }
            }
        }
    }
}
