//! The GPU's kernels run without a GPU: `kernels/*.cu`, built for the host, a fibre a CUDA thread.

pub mod runtime;
