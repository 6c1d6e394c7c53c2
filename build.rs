//! Builds the kernels, for the GPU and for the host, and checks that they agree with Rust about memory layouts. Finds the
//! commit that is built.

#[path = "build/abi.rs"]
mod abi;
#[path = "build/commit.rs"]
mod commit;
#[path = "build/files.rs"]
mod files;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/simt.rs"]
mod simt;

fn main() {
    commit::find();
    abi::generate();
    simt::build();
    nvcc::build();
}
