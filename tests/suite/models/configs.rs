//! Compares what is read from random config.json files with what transformers computes with
//! (`tests/golden/make_configs.py`).

use std::fs;
use std::path::Path;

use codit::checkpoint::Checkpoint;
use codit::model::Spec;
use codit::model::rope::Rope;
use codit::model::spec::Mlp;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Case {
    config: Value,
    /// Absent where transformers cannot build or run the model.
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    query_heads: usize,
    key_value_heads: usize,
    head_dim: usize,
    context_length: usize,
    attention_scale: f64,
    epsilon: f64,
    qkv_bias: bool,
    attention_out_bias: bool,
    tied_lm_head: bool,
    windows: Vec<Option<usize>>,
    kinds: Vec<String>,
    mixtures: Vec<Value>,
    /// One, or that of layers that see all positions and that of layers with a window.
    ropes: Vec<Option<Rotation>>,
}

#[derive(Deserialize)]
struct Rotation {
    inverse_frequencies: Vec<f64>,
    scale: f64,
}

fn read(config: &Value) -> Result<Spec, codit::Error> {
    let folder = tempfile::tempdir().unwrap();
    // Python writes the infinite numbers of some cases as it reads them.
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Spec::open(&Checkpoint::open(folder.path()).unwrap())
}

#[test]
fn configurations_are_read_as_transformers_reads_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/configs.jsonl");
    let (mut loaded, mut wrong) = (0, Vec::new());
    for line in fs::read_to_string(path).unwrap().lines() {
        let Case { config, model } = codit::python_json::from_slice(line.as_bytes()).unwrap();
        let spec = read(&config);
        let Some(model) = model else { continue };
        loaded += 1;
        let difference = match &spec {
            Ok(spec) => difference(spec, &model),
            Err(error) => Some(error.to_string()),
        };
        // With one pair, transformers applies the factors of all pairs to it.
        if difference.as_ref().is_some_and(|text| text.contains("not supported with rope_type longrope")) {
            continue;
        }
        wrong.extend(difference.map(|difference| format!("{difference}\n{config}\n")));
    }
    assert!(loaded > 400, "{loaded}");
    assert!(wrong.is_empty(), "{} of {loaded}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The first difference.
fn difference(spec: &Spec, model: &Model) -> Option<String> {
    let near = |a: f64, b: f64| (a - b).abs() <= 3e-6 * b.abs();
    let windows: Vec<_> = spec.layers.iter().map(|layer| layer.window).collect();
    let mixture = |mlp| match mlp {
        Mlp::Dense => Value::Null,
        Mlp::Mixture(mixture) => {
            let routing = mixture.routing;
            json!([routing.branches, routing.active, routing.normalized, mixture.intermediate_size])
        }
    };
    let mixtures: Vec<_> = spec.layers.iter().map(|layer| mixture(layer.mlp)).collect();
    // The scaling may stretch the context or bound it.
    let is_scaled =
        spec.ropes.iter().any(|rope| rope.scale != 1.0) || spec.context_length < model.context_length;
    let checks = [
        ("heads", (spec.heads.query, spec.heads.key_value) == (model.query_heads, model.key_value_heads)),
        ("head_dim", spec.heads.dim == model.head_dim),
        ("context", is_scaled || spec.context_length >= model.context_length),
        ("attention scale", near(spec.attention_scale.into(), model.attention_scale)),
        ("epsilon", near(spec.epsilon.into(), model.epsilon)),
        ("biases", (spec.qkv_bias, spec.attention_out_bias) == (model.qkv_bias, model.attention_out_bias)),
        ("tied", spec.tied_lm_head == model.tied_lm_head),
        ("windows", windows == model.windows),
        ("mixtures", mixtures == model.mixtures),
    ];
    if let Some((name, _)) = checks.iter().find(|(_, is_equal)| !is_equal) {
        return Some(format!("{name}: {windows:?} {:?}", model.windows));
    }
    let uses = ["full_attention", "sliding_attention"].map(|kind| model.kinds.iter().any(|one| one == kind));
    for (index, (found, expected)) in spec.ropes.iter().zip(&model.ropes).enumerate() {
        let Some(expected) = expected.as_ref().filter(|_| model.ropes.len() == 1 || uses[index]) else {
            continue;
        };
        let Rope { inverse_frequencies, scale, .. } = found;
        let equal = inverse_frequencies.len() == expected.inverse_frequencies.len()
            && inverse_frequencies
                .iter()
                .zip(&expected.inverse_frequencies)
                .all(|(a, b)| near((*a).into(), *b));
        if !equal || !near((*scale).into(), expected.scale) {
            let expected = (&expected.inverse_frequencies, expected.scale);
            return Some(format!(
                "rotation {index}: {inverse_frequencies:?}, {scale} in place of {expected:?}"
            ));
        }
    }
    None
}
