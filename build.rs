//! Builds what is not Rust: the kernels, for the GPU and for the host.

#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/simt.rs"]
mod simt;

fn main() {
    simt::build();
    nvcc::build();
}
