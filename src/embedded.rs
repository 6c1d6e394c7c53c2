//! The embedded pair: a small expert and its amateur, built into the program. How they were made: `embedded/`.

use crate::checkpoint::Checkpoint;

/// Bytes at an address that is aligned for any element. safetensors aligns tensors within the file, which helps only
/// if the file itself is aligned.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

macro_rules! file {
    ($name:literal, $file:literal) => {{
        const PATH_BYTES: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/embedded/", $name, "/", $file)));
        ($file, &PATH_BYTES.0)
    }};
}

macro_rules! model {
    ($name:literal) => {{
        const FILES: &[(&str, &[u8])] = &[
            file!($name, "config.json"),
            file!($name, "generation_config.json"),
            file!($name, "model.safetensors"),
            file!($name, "tokenizer.json"),
            file!($name, "tokenizer_config.json"),
            file!($name, "chat_template.jinja"),
        ];
        Checkpoint::embedded(concat!("codit-embedded-", $name), FILES)
    }};
}

/// The post-trained model.
pub fn expert() -> Checkpoint {
    model!("expert")
}

/// The pre-trained model that the expert was made from.
pub fn amateur() -> Checkpoint {
    model!("amateur")
}
