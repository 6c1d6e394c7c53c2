//! Decodes with every named pair, from its published layout to a dataset.

use std::fs;
use std::process::Command;

use codit::checkpoint::Checkpoint;
use codit::model::spec::stop_tokens;
use codit::pairs::{self, PAIRS, PairPreset};
use codit::text::{Conversation, Text};
use serde_json::json;

use super::layouts::{Family, Layout};
use super::{FakeHub, cache, manifest};
use crate::program::{Workplace, message, records, synth};

const LLAMA: &[Family] = &[Family::Llama, Family::SmolLm2];
const QWEN3: &[Family] = &[Family::Qwen3, Family::Qwen3Moe];
const GEMMA_3: &[Family] = &[Family::Gemma3, Family::Gemma3Vision];
const OLMO_3: &[Family] = &[Family::Olmo3];

#[test]
fn every_pair_of_llama_runs_by_name() {
    run_all(LLAMA);
}

#[test]
fn every_pair_of_qwen3_runs_by_name() {
    run_all(QWEN3);
}

#[test]
fn every_pair_of_gemma_3_runs_by_name() {
    run_all(GEMMA_3);
}

#[test]
fn every_pair_of_olmo_3_runs_by_name() {
    run_all(OLMO_3);
}

/// A pair of a family that no test above names would never run.
#[test]
fn every_pair_is_of_a_family_that_runs() {
    let families = [LLAMA, QWEN3, GEMMA_3, OLMO_3].concat();
    for pair in PAIRS {
        let runs = families.contains(&Layout::of(pair.name).family());
        assert!(runs, "no test runs the pair {}; give its family one", pair.name);
    }
}

fn run_all(families: &[Family]) {
    for pair in PAIRS {
        let layout = Layout::of(pair.name);
        if families.contains(&layout.family()) {
            run(pair, &layout);
        }
    }
}

/// A hub serves the pair as it is published. The pair decodes two instructions with its own settings.
fn run(pair: &PairPreset, layout: &Layout) {
    let (hub, place) = (FakeHub::start(), Workplace::new());
    let expert_commit = hub.commit(pair.expert, layout.files(true, 1));
    let amateur_commit = hub.commit(pair.amateur, layout.files(false, 2));
    let instructions =
        ["Name a river.", "What is 3 plus 4?"].map(|text| json!({"instruction": text}).to_string());
    let input = place.write("input.jsonl", &instructions.join("\n"));
    let output = place.path("out");
    let mut command =
        synth(&input, &output, &["--pair", pair.name, "--seed", "3", "--kv-cache-memory", "64MiB"]);
    hub.serve(&mut command, &place.path("home"));
    let result = command.output().unwrap();
    assert!(result.status.success(), "{}: {}", pair.name, message(&result));

    let records = records(&output);
    assert_eq!(records.len(), 2);
    for record in &records {
        let score = record["score"].as_array().unwrap();
        assert!(record.get("error").is_none() && !score.is_empty(), "{}: {record}", pair.name);
        let expected = json!({
            "temperature": 1.0, "top_p": 1.0, "max_tokens": pair.max_tokens, "contrastive_decoding": true, "alpha": 0.01,
            "beta": 1.0, "expert_model_id": pair.expert, "amateur_model_id": pair.amateur,
        });
        assert_eq!(record["res_metadata"], expected);
    }
    let manifest = manifest(&place, "out");
    assert_eq!(manifest["expert"]["revision"], expert_commit.as_str());
    assert_eq!(manifest["amateur"]["revision"], amateur_commit.as_str());
    let variables = manifest["settings"]["chat_template_kwargs"].as_object().unwrap();
    for (name, value) in pair.template_variables() {
        assert_eq!(variables[&name], value, "{}", pair.name);
    }

    let expert = cache(&place, pair.expert).join("snapshots").join(&expert_commit);
    let expert = Checkpoint::open(expert).unwrap();
    let text = Text::load(&expert).unwrap();
    let stops: Vec<_> = stop_tokens(&expert).unwrap();
    let stops: Vec<_> = stops.iter().map(|id| text.tokenizer().decode(&[*id], false).unwrap()).collect();
    assert_eq!(stops, layout.stops(), "{}", pair.name);
}

/// The prompt of the model has an empty thought, unless the user asks for thoughts. Other flags also override the
/// pair's settings.
#[test]
fn a_pairs_settings_arrive_and_flags_override_them() {
    let pair = pairs::find("qwen3-8b").unwrap();
    let layout = Layout::of(pair.name);
    let (hub, place) = (FakeHub::start(), Workplace::new());
    hub.commit(pair.expert, layout.files(true, 1));
    hub.commit(pair.amateur, layout.files(false, 2));
    hub.commit("acme/base", layout.files(false, 3));
    let run = |name: &str, row: serde_json::Value, arguments: &[&str]| {
        let input = place.write(&format!("{name}.jsonl"), &row.to_string());
        let settings =
            ["--pair", pair.name, "--seed", "3", "--max-tokens", "20", "--kv-cache-memory", "64MiB"];
        let mut command = synth(&input, &place.path(name), &[&settings, arguments].concat());
        hub.serve(&mut command, &place.path("home"));
        let result = command.output().unwrap();
        assert!(result.status.success(), "{}", message(&result));
        records(&place.path(name)).remove(0)
    };
    let instruction = "Name a river.";
    let asked = json!({"id": "a", "instruction": instruction});
    let silent = run("silent", asked.clone(), &[]);
    let aloud = run("aloud", asked.clone(), &["--chat-template-kwargs", r#"{"enable_thinking": true}"#]);
    let other = run("other", asked, &["--amateur", "acme/base", "--alpha", "0.5"]);

    let snapshots = cache(&place, pair.expert).join("snapshots");
    let snapshot = fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path();
    let text = Text::load(&Checkpoint::open(snapshot).unwrap()).unwrap();
    let prompt = |thinking: bool| {
        let kwargs = json!({"enable_thinking": thinking}).as_object().unwrap().clone();
        text.template().unwrap().render(&Conversation::of_instruction(instruction), &kwargs).unwrap()
    };
    assert!(prompt(false).ends_with("<think>\n\n</think>\n\n") && prompt(true).ends_with("assistant\n"));
    // The same tokens under the same id give the same response.
    for (name, record, thinking) in [("silent-text", &silent, false), ("aloud-text", &aloud, true)] {
        let plain = run(name, json!({"id": "a", "prompt": prompt(thinking)}), &[]);
        assert_eq!((&plain["response"], &plain["score"]), (&record["response"], &record["score"]));
    }
    assert_ne!(silent["score"], aloud["score"]);
    assert_eq!(silent["res_metadata"]["max_tokens"], 20);
    let metadata = &other["res_metadata"];
    assert_eq!((&metadata["amateur_model_id"], &metadata["alpha"]), (&json!("acme/base"), &json!(0.5)));
    assert_eq!(metadata["expert_model_id"], pair.expert);
}

#[test]
fn pairs_are_listed_and_a_wrong_name_lists_them() {
    let program =
        |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_codit")).args(arguments).output().unwrap();
    let listed = String::from_utf8(program(&["pairs"]).stdout).unwrap();
    let refused = message(&program(&["plan", "--pair", "qwen3-8"]));
    for pair in PAIRS {
        assert!(listed.contains(pair.name) && listed.contains(pair.expert) && listed.contains(pair.amateur));
        assert!(refused.contains(pair.name), "{refused}");
    }
}
