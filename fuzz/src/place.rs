//! The folder in which a target's files lie.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::{env, fs, process};

use codit::Checkpoint;

/// The checkpoint of which each target damages one file.
const BASE: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("../seeds/base/config.json")),
    ("generation_config.json", include_bytes!("../seeds/base/generation_config.json")),
    ("model.safetensors", include_bytes!("../seeds/base/model.safetensors")),
    ("tokenizer.json", include_bytes!("../seeds/base/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../seeds/base/tokenizer_config.json")),
    ("chat_template.jinja", include_bytes!("../seeds/base/chat_template.jinja")),
];

/// The path of `name` in this process's folder, which whoever starts the process removes with `TMPDIR`.
pub fn path(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = env::temp_dir().join(format!("codit-fuzz-{}", process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        folder
    });
    folder.join(name)
}

/// Writes `data` as the file `name`.
pub fn write(name: &str, data: &[u8]) -> PathBuf {
    let path = path(name);
    fs::write(&path, data).expect("the file can be written");
    path
}

/// The checkpoint with `data` in place of its file `name`, and without the files of `absent`.
pub fn checkpoint(name: &str, data: &[u8], absent: &[&str]) -> Checkpoint {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = path("checkpoint");
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, bytes) in BASE {
            fs::write(folder.join(name), bytes).expect("the file can be written");
        }
        folder
    });
    for name in absent {
        let _ = fs::remove_file(folder.join(name));
    }
    fs::write(folder.join(name), data).expect("the file can be written");
    Checkpoint::open(folder).expect("the folder is there")
}
