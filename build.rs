//! Builds what is not Rust: the kernels.

#[path = "build/simt.rs"]
mod simt;

fn main() {
    simt::build();
}
