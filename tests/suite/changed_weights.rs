//! Files of weights that another program changes while they are read.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use codit::checkpoint::Checkpoint;
use codit::mapped_file::shrunk_file;
use serde_json::{Map, Value, json};

use crate::program::{Workplace, records, synth};

const WEIGHTS: &str = "model.safetensors";
/// The width of the MLPs of a model that takes long enough to load for another program to come between: 1 GiB.
const WIDTH: u64 = 233_000;

/// The embedded expert with MLPs of `WIDTH`, all zeros: the file takes no room on the disk.
fn wide_model(place: &Workplace) -> PathBuf {
    let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded/expert");
    let folder = place.path("wide");
    fs::create_dir_all(&folder).unwrap();
    for file in fs::read_dir(&embedded).unwrap().map(|file| file.unwrap().path()) {
        if file.is_file() {
            fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
    }
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let mut wide = config.clone();
    wide["intermediate_size"] = json!(WIDTH);
    fs::write(folder.join("config.json"), wide.to_string()).unwrap();

    let mut file = File::open(embedded.join(WEIGHTS)).unwrap();
    let mut length = [0; 8];
    file.read_exact(&mut length).unwrap();
    let mut header = vec![0; u64::from_le_bytes(length) as usize];
    file.read_exact(&mut header).unwrap();
    let mut header: Map<String, Value> = serde_json::from_slice(&header).unwrap();
    let mut end = 0;
    for (_, tensor) in header.iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let sizes = tensor["shape"].as_array_mut().unwrap();
        sizes
            .iter_mut()
            .filter(|size| **size == config["intermediate_size"])
            .for_each(|size| *size = WIDTH.into());
        let start = end;
        end += 2 * sizes.iter().map(|size| size.as_u64().unwrap()).product::<u64>();
        tensor["data_offsets"] = json!([start, end]);
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(folder.join(WEIGHTS)).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    folder
}

/// Waits until the process has read `bytes` of its memory's worth of weights; false if it has ended before.
fn wait_until_it_loads(child: &mut Child) -> bool {
    let status = format!("/proc/{}/status", child.id());
    loop {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes =
            resident.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        if kilobytes > 200_000 {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `change` while a model loads, again if the model was faster, and returns what the program says.
fn said_if_changed(mut change: impl FnMut(&Path)) -> String {
    for _ in 0..10 {
        let place = Workplace::new();
        let (input, model) = (place.instructions(1), wide_model(&place));
        let arguments = [
            "--beta",
            "0",
            "--max-tokens",
            "2",
            "--max-model-len",
            "256",
            "--expert",
            model.to_str().unwrap(),
        ];
        let mut command: Command = synth(&input, &place.path("out"), &arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        if wait_until_it_loads(&mut child) {
            change(&model.join(WEIGHTS));
        }
        let result = child.wait_with_output().unwrap();
        let said = String::from_utf8(result.stderr).unwrap();
        if result.status.code() == Some(0) {
            assert_eq!(records(&place.path("out")).len(), 1);
            continue;
        }
        assert_eq!(result.status.code(), Some(1), "{}: {said}", result.status);
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("codit: error: ")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        return errors[0].to_owned();
    }
    panic!("the model was loaded each time before its file was changed");
}

#[test]
fn weights_that_are_cut_off_while_they_load() {
    let said =
        said_if_changed(|weights| File::options().write(true).open(weights).unwrap().set_len(1000).unwrap());
    assert!(said.contains(WEIGHTS) && said.contains("changed it while it was read"), "{said}");
    assert!(said.contains("run the same command again"), "{said}");
}

#[test]
fn weights_that_are_overwritten_while_they_load() {
    use std::os::unix::fs::FileExt;
    let said = said_if_changed(|weights| {
        File::options().write(true).open(weights).unwrap().write_all_at(&[1; 64], 1 << 20).unwrap();
    });
    assert!(said.contains(WEIGHTS) && said.contains("changed it while it was read"), "{said}");
}

/// A program that embeds the engine learns from its own handler which file it was.
#[test]
fn a_file_that_became_shorter_is_named() {
    let place = Workplace::new();
    let model = wide_model(&place);
    let bytes = Checkpoint::open(&model).unwrap().read(WEIGHTS).unwrap();
    assert!(shrunk_file().is_none());
    bytes.check_unchanged().unwrap();
    File::options().write(true).open(model.join(WEIGHTS)).unwrap().set_len(1000).unwrap();
    assert!(shrunk_file().unwrap().to_string().contains(model.to_str().unwrap()));
    assert_eq!(bytes.check_unchanged().unwrap_err().exit_code(), 1);
    drop(bytes);
    assert!(shrunk_file().is_none());
}
