//! `codit synth` from input to dataset.

use std::fs;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::program::{Workplace, message, records, refuse, sorted_lines, succeed};

#[test]
fn a_record_has_the_methods_fields_and_the_inputs_columns() {
    let place = Workplace::new();
    let input = place.write(
        "input.jsonl",
        concat!(
            r#"{"topic": "x", "id": 7, "instruction": "What is 3 plus 4?", "weight": 1.50}"#,
            "\n\n",
            r#"{"prompt": "The river "}"#,
            "\n",
            r#"{"id": "talk", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "What is 2 plus 2?"}]}"#,
        ),
    );
    let output = place.path("out.jsonl");
    succeed(&input, &output, &["--seed", "5", "--max-tokens", "20", "--beta", "0.5"]);

    let text = fs::read_to_string(&output).unwrap();
    let line = text.lines().find(|line| line.starts_with(r#"{"id":"7","#)).unwrap();
    assert!(line.ends_with(r#","topic":"x","weight":1.50}"#), "{line}");
    let record: Value = serde_json::from_str(line).unwrap();
    let fields: Vec<&String> = record.as_object().unwrap().keys().collect();
    assert_eq!(fields[..6], ["id", "is_completed", "instruction", "response", "res_metadata", "score"]);
    assert_eq!(
        record["res_metadata"].to_string(),
        json!({
            "temperature": 1.0, "top_p": 1.0, "max_tokens": 20, "contrastive_decoding": true, "alpha": 0.01, "beta": 0.5,
            "expert_model_id": "codit-embedded-expert", "amateur_model_id": "codit-embedded-amateur",
        })
        .to_string()
    );
    let scores = record["score"].as_array().unwrap();
    assert!(!scores.is_empty() && scores.len() <= 20 && scores.iter().all(|s| s.as_f64().unwrap() <= 0.0));

    let records = records(&output);
    let by_id = |id: Value| records.iter().find(|r| r["id"] == id).unwrap();
    assert_eq!(by_id(json!("conv_3"))["instruction"], "The river ");
    assert_eq!(by_id(json!("talk"))["instruction"], "What is 2 plus 2?");
    assert_eq!(by_id(json!("talk"))["messages"].as_array().unwrap().len(), 3);
}

#[test]
fn log_probabilities_change_nothing_else() {
    let place = Workplace::new();
    let input = place.instructions(3);
    let run = |name: &str, arguments: &[&str]| {
        let output = place.path(name);
        succeed(&input, &output, &[&["--max-tokens", "12", "--seed", "5"], arguments].concat());
        let mut records = records(&output);
        records.sort_by_key(|record| record["id"].to_string());
        records
    };
    let (plain, more) = (run("plain", &[]), run("more", &["--log-probabilities"]));
    let alone = run("alone", &["--log-probabilities", "--beta", "0", "--alpha", "0"]);
    for (plain, more) in plain.iter().zip(&more) {
        assert!(plain.get("expert_logprobs").is_none() && plain.get("amateur_logprobs").is_none());
        assert_eq!((&plain["response"], &plain["score"]), (&more["response"], &more["score"]));
        for list in ["expert_logprobs", "amateur_logprobs"] {
            let list = more[list].as_array().unwrap();
            assert_eq!(list.len(), more["score"].as_array().unwrap().len());
            assert!(list.iter().all(|l| l.as_f64().unwrap() <= 0.0));
        }
    }
    // With the expert alone, the score is its log-probability.
    for record in alone {
        assert!(record.get("amateur_logprobs").is_none());
        let lists = ["expert_logprobs", "score"].map(|list| record[list].as_array().unwrap().clone());
        for (l_e, score) in lists[0].iter().zip(&lists[1]) {
            assert!((l_e.as_f64().unwrap() - score.as_f64().unwrap()).abs() < 1e-5);
        }
    }

    // A resumed run cannot add records with log-probabilities to records without them.
    let arguments = ["--max-tokens", "12", "--seed", "5", "--log-probabilities"];
    let said = refuse(&input, &place.path("plain"), &arguments);
    assert!(said.contains("log_probabilities was unset, now true"), "{said}");
}

#[test]
fn a_seed_repeats_a_run_and_a_drawn_seed_is_recorded() {
    let place = Workplace::new();
    let input = place.instructions(12);
    let run = |name: &str, arguments: &[&str]| {
        let output = place.path(name);
        succeed(&input, &output, &[&["--max-tokens", "24"], arguments].concat());
        let manifest: Value =
            serde_json::from_str(&fs::read_to_string(place.path(&format!("{name}-manifest"))).unwrap())
                .unwrap();
        (sorted_lines(&output), manifest["seed"].as_u64().unwrap())
    };
    let (drawn, seed) = run("a", &[]);
    let (repeated, _) = run("b", &["--seed", &seed.to_string()]);
    let (other, _) = run("c", &["--seed", &(seed + 1).to_string()]);
    assert_eq!(drawn, repeated);
    assert_ne!(drawn, other);
}

/// Capacity changes no response.
#[test]
fn records_are_the_same_at_any_capacity_and_order() {
    let place = Workplace::new();
    let input = place.instructions(40);
    let output = place.path("reference");
    let settings = ["--seed", "3", "--max-tokens", "32"];
    succeed(&input, &output, &settings);
    let reference = sorted_lines(&output);

    let mut reversed: Vec<String> = fs::read_to_string(&input).unwrap().lines().map(str::to_owned).collect();
    reversed.reverse();
    let reversed = place.write("reversed.jsonl", &(reversed.join("\n") + "\n"));
    let capacities: [&[&str]; 5] = [
        &["--max-num-seqs", "1"],
        &["--max-num-seqs", "3", "--max-num-batched-tokens", "1", "--threads", "1"],
        &["--max-num-seqs", "16", "--max-num-batched-tokens", "512", "--block-size", "1"],
        &["--max-num-seqs", "64", "--max-num-batched-tokens", "5"],
        &["--max-num-seqs", "40", "--kv-cache-memory", "2MiB", "--max-model-len", "256"],
    ];
    for (index, capacity) in capacities.iter().enumerate() {
        let output = place.path(&format!("{index}"));
        succeed(&reversed, &output, &[&settings, *capacity].concat());
        assert_eq!(sorted_lines(&output), reference, "{capacity:?}");
    }
}

#[test]
fn the_expert_alone_needs_no_amateur_and_does_not_run_one() {
    let place = Workplace::new();
    let input = place.instructions(4);
    let expert = place.path("expert");
    copy_embedded_expert(&expert);
    let output = place.path("out");
    let direct =
        ["--alpha", "0", "--beta", "0", "--max-tokens", "16", "-v", "--expert", expert.to_str().unwrap()];
    let result = succeed(&input, &output, &direct);
    let record = &records(&output)[0];
    assert_eq!(record["res_metadata"]["contrastive_decoding"], false);
    assert_eq!(record["res_metadata"]["amateur_model_id"], Value::Null);
    let said = message(&result);
    for part in ["decided by the expert", "plausible tokens on average", "response tokens/s"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn ignore_eos_goes_on_to_the_limit() {
    let place = Workplace::new();
    let input = place.instructions(3);
    let output = place.path("out");
    succeed(&input, &output, &["--ignore-eos", "--max-tokens", "50"]);
    for record in records(&output) {
        assert_eq!(record["score"].as_array().unwrap().len(), 50);
        assert_eq!(record["is_completed"], false);
    }
}

/// An over-long prompt gets an error record, and the run continues.
#[test]
fn a_prompt_longer_than_the_window_gets_an_error_record() {
    let place = Workplace::new();
    let long = json!({"id": "long", "instruction": "river ".repeat(2000)});
    let short = json!({"id": "short", "instruction": "What is 3 plus 4?"});
    let input = place.write("input.jsonl", &format!("{long}\n{short}\n"));
    let output = place.path("out");
    succeed(&input, &output, &["--max-model-len", "200"]);
    for record in records(&output) {
        if record["id"] == "long" {
            let error = record["error"].as_str().unwrap();
            assert!(
                error.contains("200") && record["is_completed"] == false && record.get("response").is_none(),
                "{record}"
            );
        } else {
            assert!(record.get("error").is_none() && !record["score"].as_array().unwrap().is_empty());
        }
    }
}

/// The embedding of one token is NaN. A record that contains the token ends with an error; the other records are
/// unchanged.
#[test]
fn a_row_of_nans_ends_its_own_record() {
    let place = Workplace::new();
    let lines = ["What is 3 plus 4?", "What is @ plus 4?", "Which number is larger, 40 or 14?"];
    let lines: Vec<String> = lines.iter().map(|line| json!({"instruction": line}).to_string()).collect();
    let input = place.write("input.jsonl", &lines.join("\n"));
    let answers = |name: &str, faulty: Option<&str>| {
        let expert = place.path(name);
        copy_embedded_expert(&expert);
        untie_lm_head(&expert, faulty);
        let output = place.path(&format!("{name}.jsonl"));
        let settings =
            ["--seed", "1", "--beta", "0", "--max-tokens", "30", "--expert", expert.to_str().unwrap()];
        succeed(&input, &output, &settings);
        let mut records = records(&output);
        records.sort_by_key(|record| record["id"].to_string());
        records
    };
    let (sound, faulty) = (answers("sound", None), answers("faulty", Some("@")));
    assert!(sound.iter().all(|record| record.get("error").is_none()));
    for (sound, faulty) in sound.iter().zip(&faulty) {
        if faulty["id"] == "conv_2" {
            assert!(faulty["error"].as_str().unwrap().contains("NaN"), "{faulty}");
        } else {
            assert_eq!((&sound["response"], &sound["score"]), (&faulty["response"], &faulty["score"]));
        }
    }
}

/// Gives a checkpoint an untied LM head, a copy of its embedding, and makes the embedding of `faulty` NaN.
fn untie_lm_head(folder: &std::path::Path, faulty: Option<&str>) {
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let table = tensors.tensor("model.embed_tokens.weight").unwrap();
    let (shape, width) = (table.shape().to_vec(), table.shape()[1]);
    let mut embedding = table.data().to_vec();
    if let Some(token) = faulty {
        let tokenizer: Value =
            serde_json::from_slice(&fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
        let id = tokenizer["model"]["vocab"][token].as_u64().unwrap() as usize;
        embedding[id * width * 2..][..width * 2].fill(0xff);
    }
    let mut all: Vec<(String, TensorView<'_>)> =
        tensors.tensors().into_iter().filter(|(name, _)| name != "model.embed_tokens.weight").collect();
    all.push(("lm_head.weight".to_owned(), table));
    let embedding = TensorView::new(Dtype::BF16, shape, &embedding).unwrap();
    all.push(("model.embed_tokens.weight".to_owned(), embedding));
    safetensors::serialize_to_file(all, None, &path).unwrap();
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["tie_word_embeddings"] = json!(false);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

pub fn copy_embedded_expert(folder: &std::path::Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/embedded/expert");
    fs::create_dir(folder).unwrap();
    for file in fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
}
