//! The thread pool and the buffers of the CPU device by themselves: their own source files, in a crate that compiles in
//! seconds. So they can be tried under loom (`--features loom`), Miri and the sanitizers.
#![allow(dead_code, missing_docs)]

#[path = "../../../src/device/cpu/arena.rs"]
pub mod arena;
#[path = "../../../src/device/cpu/buffer.rs"]
pub mod buffer;
#[path = "../../../src/device/cpu/pool.rs"]
pub mod pool;
#[cfg_attr(not(feature = "loom"), path = "../../../src/device/cpu/threading.rs")]
mod threading;
#[path = "../../../src/device/cpu/tile.rs"]
pub mod tile;
#[path = "../../../src/device/cpu/tiles.rs"]
pub mod tiles;

/// The part of the crate's errors that these files use.
pub mod error {
    #[derive(Debug)]
    pub enum Error {
        Device(String),
    }

    impl Error {
        pub fn refused_thread(error: &std::io::Error) -> Self {
            Self::Device(error.to_string())
        }
    }

    pub type Result<T> = std::result::Result<T, Error>;
}
