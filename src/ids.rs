//! Newtypes for ids, so that they cannot be confused.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[derive(bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(transparent)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number as an index.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id! {
    /// A row of the vocabulary.
    TokenId(u32)
}
id! {
    /// A block of the paged KV cache. One id names the same block in both models' planes.
    BlockId(u32)
}
id! {
    /// A sequence in the scheduler.
    SeqId(u64)
}
