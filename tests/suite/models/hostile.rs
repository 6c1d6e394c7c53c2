//! Thousands of checkpoints with hostile values. Each is loaded, or refused as bad input in one line; nothing panics,
//! overflows or asks for more memory than there is. The cases depend on their numbers alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use codit::checkpoint::Checkpoint;
use codit::device::cpu::Cpu;
use codit::device::{Capacity, Dtype, Format};
use codit::engine::footprint::ModelFootprint;
use codit::model::spec::stop_tokens;
use codit::model::{Decoder, Spec};
use serde_json::{Map, Value, json};

use super::Random;
use super::checkpoints::{CONFIG, Copy, INDEX, WEIGHTS, one_token};

const CASES: [&str; 5] =
    ["llama-gqa2-f16", "qwen3-gqa2-tied", "qwen3-moe-plain-old", "gemma3-tower", "olmo3-yarn"];

/// A value that some reader may not expect.
fn hostile(random: &mut Random) -> Value {
    let texts = ["", "0", "NaN", "default", "yarn", "full_attention", "\u{0}", "../a.safetensors", "F32"];
    match random.below(12) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 => json!(([0, 1, 2, 3, 7, 64][random.below(6)])),
        3 => json!(-(random.below(1 << 20) as i64)),
        4 => json!(u64::MAX >> random.below(64)),
        5 => json!(i64::MIN >> random.below(63)),
        6 => json!(([0.5, 1e-300, 1e300, -0.0, 5e-324, f64::MAX, 1.5][random.below(7)])),
        7 => json!(texts[random.below(texts.len())]),
        8 => json!([]),
        9 => (0..random.below(9)).map(|_| hostile(random)).collect(),
        10 => json!({}),
        _ => {
            let kind = ["linear", "yarn", "longrope", "llama3"][random.below(4)];
            json!({"rope_type": kind, "factor": hostile(random)})
        }
    }
}

/// Replaces, removes, adds or swaps a value somewhere within `value`.
fn mutate(value: &mut Value, random: &mut Random) {
    let is_deeper = random.below(3) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = &names[random.below(names.len())];
            match random.below(8) {
                0 => drop(fields.remove(name)),
                1 => drop(fields.insert(format!("{name}x"), hostile(random))),
                2 => {
                    let other = fields[&names[random.below(names.len())]].clone();
                    fields.insert(name.clone(), other);
                }
                _ if is_deeper && (fields[name].is_object() || fields[name].is_array()) => {
                    mutate(&mut fields[name], random);
                }
                _ => drop(fields.insert(name.clone(), hostile(random))),
            }
        }
        Value::Array(items) if is_deeper && !items.is_empty() => {
            let index = random.below(items.len());
            match random.below(4) {
                0 => drop(items.remove(index)),
                1 => items.push(hostile(random)),
                _ => mutate(&mut items[index], random),
            }
        }
        value => *value = hostile(random),
    }
}

/// Loads the copy and runs it; returns whether that worked. An error must be one about the input, in one line.
fn try_out(what: &str, device: &Cpu, copy: &Copy) -> bool {
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    let attempt = || {
        stop_tokens(&checkpoint)?;
        let mut decoder = Decoder::load(device, &checkpoint, 2, 1)?;
        one_token(&mut decoder);
        Ok::<_, codit::Error>(())
    };
    let result = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| panic!("{what} panics"));
    if let Err(error) = &result {
        let message = error.to_string();
        assert!(error.exit_code() == 2 && !message.contains('\n'), "{what}: {message}");
        assert!(message.len() < 1000, "{what}: {message}");
    }
    result.is_ok()
}

/// Tries `count` mutations of a JSON file of the golden cases.
fn mutations(file: &str, count: usize, cases: &[&str]) {
    let device = Cpu::new(Some(1)).unwrap();
    let copies: Vec<Copy> = cases.iter().map(|case| Copy::of(case)).collect();
    let mut loaded = 0;
    for number in 0..count {
        let mut random = Random(number as u64);
        let copy = &copies[number % copies.len()];
        let original = copy.read(file);
        let mut value: Value = serde_json::from_slice(&original).unwrap();
        for _ in 0..=random.below(3) {
            mutate(&mut value, &mut random);
        }
        copy.replace(file, value.to_string());
        loaded += usize::from(try_out(&format!("{file} {number}"), &device, copy));
        copy.replace(file, original);
    }
    println!("{file}: {loaded} of {count} load");
    assert!((1..count).contains(&loaded), "{loaded}");
}

#[test]
fn hostile_configurations() {
    mutations(CONFIG, 2500, &CASES);
}

#[test]
fn hostile_generation_configurations() {
    mutations("generation_config.json", 600, &CASES);
}

#[test]
fn hostile_indices() {
    mutations(INDEX, 600, &["llama-gqa8-shards", "qwen3-gqa3-shards-f32"]);
}

/// Headers whose lengths, shapes, formats and offsets are wrong.
#[test]
fn hostile_headers() {
    let device = Cpu::new(Some(1)).unwrap();
    let cases = ["llama-gqa2-f16", "qwen3-gqa2-tied", "gemma3-tower", "olmo3-yarn"];
    let copies = cases.map(Copy::of);
    let mut loaded = 0;
    for number in 0..2500 {
        let mut random = Random(number as u64);
        let copy = &copies[number % copies.len()];
        let original = copy.read(WEIGHTS);
        let length = u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
        let (header, data) = original[8..].split_at(length);
        let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        let names: Vec<String> = header.keys().cloned().collect();
        for _ in 0..=random.below(3) {
            let Some(tensor) = header.get_mut(&names[random.below(names.len())]) else { continue };
            match random.below(5) {
                0 => {
                    let dtypes = ["F64", "F32", "BF16", "I8", "BOOL", "F4", "C64"];
                    tensor["dtype"] = json!(dtypes[random.below(7)]);
                }
                1 => tensor["data_offsets"] = json!([hostile(&mut random), hostile(&mut random)]),
                2 => tensor["shape"] = (0..random.below(5)).map(|_| hostile(&mut random)).collect(),
                3 => mutate(tensor, &mut random),
                _ => {
                    let name = names[random.below(names.len())].clone();
                    header.remove(&name);
                }
            }
        }
        let header = Value::Object(header).to_string();
        let said = if random.below(8) == 0 { u64::MAX >> random.below(64) } else { header.len() as u64 };
        let kept = if random.below(8) == 0 { random.below(data.len()) } else { data.len() };
        copy.replace(WEIGHTS, [&said.to_le_bytes()[..], header.as_bytes(), &data[..kept]].concat());
        loaded += usize::from(try_out(&format!("header {number}"), &device, copy));
        copy.replace(WEIGHTS, original);
    }
    println!("headers: {loaded} load");
}

/// Sizes times sizes do not overflow: what a configuration is accepted with can be counted.
#[test]
fn extreme_sizes_can_be_counted() {
    let sizes = [1u64, 2, 64, 256, 1 << 10, 1 << 12, 1 << 16, 1 << 20, 1 << 24];
    let capacity = Capacity { max_num_seqs: 1 << 20, max_num_batched_tokens: 1 << 20, block_size: 1 << 20 };
    let copy = Copy::of("qwen3-moe-plain-old");
    let mut accepted = 0;
    for number in 0..1500 {
        let mut random = Random(number);
        let mut size = |most: u64| sizes[random.below(sizes.len())].min(most);
        let config = json!({
            "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": size(1 << 24), "hidden_size": size(1 << 24),
            "intermediate_size": size(1 << 24), "num_hidden_layers": size(1 << 12).min(64), "num_attention_heads": size(1 << 12),
            "num_key_value_heads": 1, "head_dim": size(1 << 12).max(2), "max_position_embeddings": size(1 << 24),
            "num_experts": size(1 << 10), "num_experts_per_tok": 1, "moe_intermediate_size": size(1 << 24),
            "decoder_sparse_step": 2
        });
        copy.replace(CONFIG, config.to_string());
        let Ok(spec) = Spec::open(&Checkpoint::open(copy.path()).unwrap()) else { continue };
        let footprint = ModelFootprint::new(&spec, Format::of(Dtype::F32), capacity).unwrap();
        let parts = [footprint.weights, footprint.workspace, footprint.block.full];
        assert!(parts.iter().all(|bytes| *bytes < 1 << 62), "{parts:?} {config}");
        accepted += 1;
    }
    assert!(accepted > 300, "{accepted}");
}
