//! Inputs that the program refuses: it prints one clear error, exits with code 2 and writes no output.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::program::{Workplace, message, records, refuse, succeed, synth};
use crate::synth::copy_embedded_expert;

#[test]
fn lines_that_are_no_prompts_are_named_by_number() {
    let good = r#"{"instruction": "Hi"}"#;
    let bad = [
        ("not json", "input.jsonl:2"),
        ("[1, 2]", "input.jsonl:2"),
        (r#"{"instruction": ""}"#, "instruction is empty"),
        (r#"{"id": "x"}"#, "no instruction"),
        (r#"{"instruction": 3}"#, "instruction must be a string"),
        (r#"{"id": "conv_1", "instruction": "Hi"}"#, "line 1"),
        (r#"{"instruction": "Hi", "prompt": "Hi"}"#, "both instruction and prompt"),
        (r#"{"instruction": "Hi", "response": "Hello"}"#, "response"),
        (r#"{"messages": [{"role": "assistant", "content": "Hi"}]}"#, "messages"),
        (r#"{"id": 1.5, "instruction": "Hi"}"#, "id"),
    ];
    for (line, words) in bad {
        let place = Workplace::new();
        let input = place.write("input.jsonl", &format!("{good}\n{line}\n"));
        let output = place.path("out.jsonl");
        let said = refuse(&input, &output, &[]);
        assert!(said.contains("input.jsonl:2: ") && said.contains(words), "{line}: {said}");
        assert!(!output.exists());
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let output = place.path("out.jsonl");
    let bad: [(&[&str], &str); 14] = [
        (&["--alpha", "1.5"], "alpha is 1.5"),
        (&["--alpha", "nan"], "alpha"),
        (&["--beta", "-1"], "beta"),
        (&["--special-token-beta", "-1"], "special-token-beta"),
        (&["--temperature", "-0.1"], "temperature"),
        (&["--temperature", "inf"], "temperature"),
        (&["--top-p", "0"], "top-p"),
        (&["--min-p", "1.1"], "min-p"),
        (&["--max-num-seqs", "0"], "max-num-seqs"),
        (&["--max-num-batched-tokens", "0"], "max-num-batched-tokens"),
        (&["--block-size", "0"], "block-size"),
        (&["--kv-cache-memory", "10B"], "kv-cache-memory"),
        (&["--max-model-len", "1000000"], "max-model-len"),
        (&["--threads", "0"], "threads"),
    ];
    for (arguments, words) in bad {
        let said = refuse(&input, &output, &equals(arguments));
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!output.exists(), "{arguments:?}");
    }
}

/// Each is one line, whatever the value is, like the errors that clap does not make.
#[test]
fn arguments_that_clap_refuses_are_one_line() {
    let place = Workplace::new();
    let input = place.instructions(1);
    let output = place.path("out.jsonl");
    let long = format!("--chat-template-kwargs={}", "[".repeat(100_000));
    let cases = [
        ("--bogus", "unexpected argument '--bogus' found"),
        ("--alpha", "a value is required for '--alpha"),
        ("--pair=\x1b[2J", "invalid value"),
        ("--progress=a\nb", "invalid value 'a\\nb'"),
        ("--max-tokens=1e3", "invalid digit"),
        ("--kv-cache-memory=0", "such as 4GiB"),
        ("--chat-template-kwargs={\"a\": 1, \"a\": 2}", "the key \"a\" is there twice"),
        (&long, "not a JSON object"),
        ("--alpha=1e300", "alpha is 1e300; it must be"),
        ("--kv-cache-memory=1000000GiB", "lower kv-cache-memory"),
    ];
    for (argument, words) in cases {
        let result = synth(&input, &output, &[argument]).output().unwrap();
        let said = message(&result);
        assert!(said.starts_with("codit: error: ") && said.trim_end().lines().count() == 1, "{said}");
        assert!(said.contains(words) && said.len() < 2000 && !said.contains('\x1b'), "{said}");
        assert!(!output.exists());
    }
    for arguments in [&["synth"][..], &["synth", "a"], &["nothing"], &["plan", "--bogus"], &["stats"]] {
        let result = Command::new(env!("CARGO_BIN_EXE_codit")).args(arguments).output().unwrap();
        let said = message(&result);
        assert_eq!(result.status.code(), Some(2));
        assert!(said.starts_with("codit: error: ") && said.trim_end().lines().count() == 1, "{said}");
        assert!(said.contains("usage: codit"), "{said}");
    }
}

/// A limit of the system is named with the command that raises it.
#[test]
fn too_few_open_files_are_said_to_be() {
    let place = Workplace::new();
    let input = place.instructions(1);
    for limit in [5, 6, 7, 8] {
        let run = synth(&input, &place.path("out.jsonl"), &["-q"]);
        let mut limited = Command::new("bash");
        limited.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
        limited.arg(run.get_program()).args(run.get_args());
        let result = limited.output().unwrap();
        let said = message(&result);
        if result.status.code() != Some(0) {
            assert!(said.contains("ulimit -n") && said.trim_end().lines().count() == 1, "{limit}: {said}");
        }
    }
}

/// However little memory or stack there is, the end is a message.
#[test]
fn too_little_memory_is_said_to_be() {
    let place = Workplace::new();
    let input = place.instructions(1);
    for limit in ["-v 60000", "-v 150000", "-v 300000", "-v 400000", "-v 1000000", "-s 64"] {
        let run = synth(&input, &place.path("out.jsonl"), &["-q", "--threads", "1", "--max-tokens", "3"]);
        let mut limited = Command::new("bash");
        limited.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
        limited.arg(run.get_program()).args(run.get_args());
        let result = limited.output().unwrap();
        let said = message(&result);
        match result.status.code() {
            Some(0) => {}
            Some(1) => {
                assert!(
                    said.contains("ulimit -v") && said.trim_end().lines().count() == 1,
                    "{limit}: {said}"
                );
            }
            // The program itself does not fit.
            Some(127) if said.contains("shared") => {}
            code => panic!("{limit}: {code:?}: {said}"),
        }
    }
}

#[test]
fn links_that_lead_to_each_other_are_bad_input() {
    let place = Workplace::new();
    let input = place.instructions(1);
    symlink("b", place.path("a")).unwrap();
    symlink("a", place.path("b")).unwrap();
    let said = refuse(&input, &place.path("a"), &[]);
    assert!(said.contains("symbolic links"), "{said}");
    refuse(&place.path("a"), &place.path("out.jsonl"), &[]);
}

/// Turns `--name value` into `--name=value`, so that a negative number is not read as an option.
fn equals<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    vec![Box::leak(arguments.join("=").into_boxed_str())]
}

/// Changes one file of a copy of the embedded expert.
fn broken_expert(place: &Workplace, file: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> String {
    let folder = place.path("broken");
    copy_embedded_expert(&folder);
    let path = folder.join(file);
    let bytes = fs::read(&path).unwrap_or_default();
    match change(bytes) {
        Some(bytes) => fs::write(&path, bytes).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
    folder.display().to_string()
}

fn with_field(field: &str, value: Value) -> impl FnOnce(Vec<u8>) -> Option<Vec<u8>> {
    move |bytes| {
        let mut config: Value = serde_json::from_slice(&bytes).unwrap();
        config[field] = value;
        Some(config.to_string().into_bytes())
    }
}

#[test]
fn checkpoints_that_cannot_be_used_are_named_with_file_and_field() {
    type Change = Box<dyn FnOnce(Vec<u8>) -> Option<Vec<u8>>>;
    let cases: Vec<(&str, Change, &[&str])> = vec![
        ("config.json", Box::new(|_| None), &["config.json"]),
        ("config.json", Box::new(|_| Some(b"{".to_vec())), &["config.json"]),
        (
            "config.json",
            Box::new(with_field("architectures", json!(["GPT2LMHeadModel"]))),
            &["config.json", "GPT2LMHeadModel"],
        ),
        (
            "config.json",
            Box::new(with_field("rope_parameters", json!({"rope_type": "longrope", "rope_theta": 1e4}))),
            &["config.json", "longrope"],
        ),
        ("config.json", Box::new(with_field("intermediate_size", json!(100))), &["model.safetensors", "mlp"]),
        (
            "config.json",
            Box::new(with_field("vocab_size", json!(1 << 24))),
            &["embed_tokens.weight has shape [1536, 192]; by config.json it should have [16777216, 192]"],
        ),
        (
            "config.json",
            Box::new(|_| Some(POINTER.into())),
            &["config.json: a Git LFS pointer", "git lfs pull"],
        ),
        ("tokenizer.json", Box::new(|_| Some(POINTER.into())), &["tokenizer.json: a Git LFS pointer"]),
        ("tokenizer_config.json", Box::new(|_| Some(POINTER.into())), &["tokenizer_config.json: a Git LFS"]),
        (
            "generation_config.json",
            Box::new(|_| Some(POINTER.into())),
            &["generation_config.json: a Git LFS"],
        ),
        ("chat_template.jinja", Box::new(|_| Some(POINTER.into())), &["chat_template.jinja: a Git LFS"]),
        ("model.safetensors", Box::new(|_| Some(POINTER.into())), &["model.safetensors: a Git LFS pointer"]),
        ("model.safetensors", Box::new(|_| None), &["model.safetensors"]),
        (
            "model.safetensors",
            Box::new(|bytes| Some(bytes[..bytes.len() / 2].to_vec())),
            &["model.safetensors"],
        ),
        ("tokenizer.json", Box::new(|_| None), &["tokenizer.json"]),
        ("tokenizer.json", Box::new(|bytes| Some(bytes[..bytes.len() / 2].to_vec())), &["tokenizer.json"]),
        ("chat_template.jinja", Box::new(|_| None), &["chat template"]),
        ("chat_template.jinja", Box::new(|_| Some(b"{% if %}".to_vec())), &["chat_template.jinja"]),
        ("chat_template.jinja", Box::new(|_| Some(vec![])), &["the chat template renders nothing"]),
        (
            "config.json",
            Box::new(with_field("max_position_embeddings", json!(1))),
            &["read at most 1 token (max_position_embeddings"],
        ),
        (
            "chat_template.jinja",
            Box::new(|_| Some(b"{{ raise_exception('no such role') }}".to_vec())),
            &["no such role"],
        ),
        (
            "chat_template.jinja",
            Box::new(|_| {
                Some(
                    b"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
                        .to_vec(),
                )
            }),
            &["template"],
        ),
    ];
    for (file, change, words) in cases {
        let place = Workplace::new();
        let input = place.instructions(2);
        let output = place.path("out.jsonl");
        let expert = broken_expert(&place, file, change);
        let said = refuse(&input, &output, &["--beta", "0", "--expert", &expert]);
        for word in words {
            assert!(said.contains(word), "{file} {words:?}: {said}");
        }
        assert!(!output.exists());
    }
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 17\n";

/// A folder as peft and Git write it: an adapter beside the tokenizer of its base.
#[test]
fn an_adapter_is_named_as_one() {
    let place = Workplace::new();
    let input = place.instructions(1);
    for has_tokenizer in [true, false] {
        let adapter = place.path("adapter");
        let _ = fs::remove_dir_all(&adapter);
        copy_embedded_expert(&adapter);
        fs::write(adapter.join("adapter_config.json"), "{\"peft_type\": \"LORA\"}").unwrap();
        fs::remove_file(adapter.join("config.json")).unwrap();
        fs::rename(adapter.join("model.safetensors"), adapter.join("adapter_model.safetensors")).unwrap();
        if !has_tokenizer {
            fs::remove_file(adapter.join("tokenizer.json")).unwrap();
        }
        let said =
            refuse(&input, &place.path("out"), &["--beta", "0", "--expert", adapter.to_str().unwrap()]);
        assert!(said.contains("an adapter (LoRA), not a model; merge it into its base first"), "{said}");
        assert!(said.contains("merge_and_unload()"), "{said}");
    }
}

#[test]
fn vocabularies_that_differ_are_refused_with_the_token() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let expert = place.path("expert");
    copy_embedded_expert(&expert);
    let amateur = broken_expert(&place, "tokenizer.json", |bytes| {
        let mut tokenizer: Value = serde_json::from_slice(&bytes).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let id = vocabulary.remove("e").expect("the letter e is a token");
        vocabulary.insert("renamed".to_owned(), id);
        Some(tokenizer.to_string().into_bytes())
    });
    let said =
        refuse(&input, &place.path("out"), &["--expert", expert.to_str().unwrap(), "--amateur", &amateur]);
    assert!(said.contains("vocabular") || said.contains("token"), "{said}");
}

/// In Gemma 3 1B, for example, the tokenizer has one token more than the embedding has rows: the special image token.
#[test]
fn only_special_tokens_may_be_without_a_row() {
    let with_token = |name: &str, is_special: bool| {
        let place = Workplace::new();
        let expert = broken_expert(&place, "tokenizer.json", |bytes| {
            let mut tokenizer: Value = serde_json::from_slice(&bytes).unwrap();
            let added = tokenizer["added_tokens"].as_array_mut().unwrap();
            // Token ids below 1500 are taken; the embedding has 1536 rows.
            for id in 1500..1536 {
                added.push(json!({"id": id, "content": format!("<unused{id}>"), "special": true, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false}));
            }
            added.push(json!({"id": 1536, "content": name, "special": is_special, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false}));
            Some(tokenizer.to_string().into_bytes())
        });
        (place, expert)
    };
    let (place, expert) = with_token("<image>", true);
    let input = place.write("input.jsonl", "{\"prompt\": \"a <image> of\"}\n{\"prompt\": \"a river\"}\n");
    let output = place.path("out.jsonl");
    let arguments = ["--beta", "0", "--max-tokens", "4", "--expert", &expert];
    succeed(&input, &output, &arguments);
    let records = records(&output);
    let of = |id: &str| records.iter().find(|record| record["id"] == id).unwrap();
    let said = of("conv_1")["error"].as_str().unwrap();
    assert!(said.contains("1536") && said.contains("<image>"), "{said}");
    assert!(of("conv_2")["response"].is_string());

    let (place, expert) = with_token("word", false);
    let said = refuse(&place.instructions(1), &place.path("out"), &["--beta", "0", "--expert", &expert]);
    assert!(said.contains("vocab_size is 1536") && said.contains("1536 is not a special one"), "{said}");
}

#[test]
fn outputs_that_cannot_be_written_are_refused() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let folder = place.path("folder");
    fs::create_dir(&folder).unwrap();
    let foreign = place.write("foreign.jsonl", "{\"a\": 1}\n");
    let cases: [(&Path, &str); 4] = [
        (&input, "input itself"),
        (&folder, "a folder"),
        (&place.path("missing/out.jsonl"), "no such folder"),
        (&foreign, "manifest"),
    ];
    for (output, words) in cases {
        let said = refuse(&input, output, &[]);
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "{\"a\": 1}\n");
}

#[test]
fn pairs_that_are_half_given_are_refused() {
    let place = Workplace::new();
    let input = place.instructions(2);
    let expert = place.path("expert");
    copy_embedded_expert(&expert);
    let said = refuse(&input, &place.path("out"), &["--expert", expert.to_str().unwrap()]);
    assert!(said.contains("--amateur"), "{said}");
    let said = refuse(&input, &place.path("out"), &["--expert", "/no/such/folder", "--beta", "0"]);
    assert!(said.contains("/no/such/folder: no such folder"), "{said}");
    let said = refuse(&place.path("absent.jsonl"), &place.path("out"), &[]);
    assert!(said.contains("absent.jsonl"), "{said}");
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_model_by_name_needs_the_hub() {
    let place = Workplace::new();
    let said = refuse(&place.instructions(1), &place.path("out"), &["--pair", "qwen3-0.6b"]);
    assert!(said.contains("Qwen/Qwen3-0.6B is no folder") && said.contains("--features hub"), "{said}");
}
