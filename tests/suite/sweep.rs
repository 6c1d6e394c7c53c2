//! Several samples of a prompt, and sweeps over alpha and beta.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Workplace, message, records, refuse, sorted_lines, start, succeed};

const SWEEP: [&str; 6] = ["--alpha", "0.01,0.3", "--beta", "0,0.5", "--n", "2"];
const SETTINGS: [(&str, &str); 4] = [("0.01", "0"), ("0.01", "0.5"), ("0.3", "0"), ("0.3", "0.5")];
const NAME: &str = "a{alpha}-b{beta}";

fn name(alpha: &str, beta: &str) -> String {
    format!("a{alpha}-b{beta}")
}

fn manifest(output: &Path) -> Value {
    let path = format!("{}-manifest", output.display());
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Copies of the embedded models; the amateur's context window is shorter.
fn pair(place: &Workplace) -> [String; 2] {
    place.embedded_pair(|model, fields| {
        fields["max_position_embeddings"] = json!(if model == "expert" { 96 } else { 48 });
    })
}

#[test]
fn a_sweep_writes_what_its_settings_write_alone() {
    let place = Workplace::new();
    let input = place.instructions(5);
    let [expert, amateur] = pair(&place);
    let rest = ["--seed", "3", "--ignore-eos", "--expert", &expert, "--amateur", &amateur];
    succeed(&input, &place.path(NAME), &[&SWEEP[..], &rest].concat());
    let mut longest = Vec::new();
    for (alpha, beta) in SETTINGS {
        let (swept, alone) = (place.path(&name(alpha, beta)), place.path("alone-{alpha}-{beta}"));
        let method = ["--alpha", alpha, "--beta", beta];
        succeed(&input, &alone, &[&method[..], &["--n", "2"], &rest].concat());
        let alone = place.path(&format!("alone-{alpha}-{beta}"));
        assert_eq!(sorted_lines(&swept), sorted_lines(&alone), "alpha {alpha}, beta {beta}");
        assert_eq!(manifest(&swept), manifest(&alone), "alpha {alpha}, beta {beta}");
        longest.push(records(&swept).iter().map(|r| r["score"].as_array().unwrap().len()).max().unwrap());

        // The first sample equals the response without `--n`.
        let one = place.path(&format!("one-{alpha}-{beta}"));
        succeed(&input, &one, &[&method[..], &rest].concat());
        let mut samples = records(&swept);
        let one = sorted_lines(&one);
        samples.retain(|record| record["sample_index"] == 0);
        assert!(samples.len() == 5 && records(&swept).len() == 10);
        for mut sample in samples {
            sample.as_object_mut().unwrap().shift_remove("sample_index");
            assert!(one.contains(&sample.to_string()), "{sample}");
        }
    }
    // The amateur's window limits only the settings that use the amateur.
    assert!(longest[0] > longest[1] && longest[2] > longest[3], "{longest:?}");
}

#[test]
fn a_sweep_is_resumed_as_a_whole_and_setting_by_setting() {
    let place = Workplace::new();
    let input = place.instructions(30);
    let rest = ["--max-tokens", "30", "--max-num-seqs", "9"];
    let arguments = [&SWEEP[..], &rest].concat();
    let sweep = place.path(NAME);
    let outputs = SETTINGS.map(|(alpha, beta)| place.path(&name(alpha, beta)));
    let mut child = start(&input, &sweep, &arguments);
    while fs::metadata(&outputs[3]).map_or(0, |output| output.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(outputs.iter().any(|output| records(output).len() < 60), "the kill came too late");
    succeed(&input, &sweep, &arguments);
    let seed = manifest(&outputs[0])["seed"].clone();
    assert!(outputs.iter().all(|output| manifest(output)["seed"] == seed));
    let whole = outputs.each_ref().map(|output| sorted_lines(output));

    // The first output is removed, the second has one record left, the third is cut within a record, and the fourth
    // lacks one sample.
    let text = fs::read_to_string(&outputs[1]).unwrap();
    fs::remove_file(&outputs[0]).unwrap();
    fs::remove_file(format!("{}-manifest", outputs[0].display())).unwrap();
    fs::write(&outputs[1], text.split_inclusive('\n').next().unwrap()).unwrap();
    let text = fs::read(&outputs[2]).unwrap();
    fs::write(&outputs[2], &text[..text.len() / 2]).unwrap();
    let text = fs::read_to_string(&outputs[3]).unwrap();
    let is_kept = |line: &&str| !line.contains(r#"{"id":"q7","sample_index":1,"#);
    fs::write(&outputs[3], text.split_inclusive('\n').filter(is_kept).collect::<String>()).unwrap();
    // The fourth output is resumed first, in a run of its own.
    let (alpha, beta) = SETTINGS[3];
    let alone = [&["--alpha", alpha, "--beta", beta, "--n", "2"][..], &rest].concat();
    let said = message(&succeed(&input, &outputs[3], &alone));
    assert!(said.contains("resuming after 59 records"), "{said}");
    succeed(&input, &sweep, &arguments);
    assert_eq!(outputs.each_ref().map(|output| sorted_lines(output)), whole);

    // The two outputs drew different seeds, so a sweep cannot resume both.
    let two = ["--beta", "1,2", "--max-tokens", "1"];
    for beta in ["1", "2"] {
        succeed(&input, &place.path(&format!("apart-{beta}")), &["--beta", beta, "--max-tokens", "1"]);
    }
    let said = refuse(&input, &place.path("apart-{beta}"), &two);
    assert!(said.contains("apart-2: its seed is") && said.contains("each by itself"), "{said}");
}

/// The engine's counts show this through the program. When many responses have the same prompt, each computes the
/// prompt's last token, whose logits it needs. Only one response computes the rest.
#[test]
fn samples_and_settings_compute_a_long_prompt_once() {
    let place = Workplace::new();
    let input = place.write("input.jsonl", &json!({"instruction": "river ".repeat(100)}).to_string());
    let computed = |name: &str, arguments: &[&str]| -> usize {
        let rest = ["--ignore-eos", "--max-tokens", "5", "--seed", "1", "--progress", "json"];
        let arguments = [&rest[..], arguments].concat();
        let end = crate::screen::end_event(&succeed(&input, &place.path(name), &arguments));
        end["engine"]["expert_positions"].as_u64().unwrap() as usize
    };
    let prompt = computed("one", &[]) - 4;
    assert!(prompt > 100, "{prompt}");
    assert_eq!(computed("samples", &["--n", "8"]), prompt + 7 + 8 * 4);
    let sweep = ["--n", "2", "--beta", "0,1", "--alpha", "0.1,0.2"];
    assert_eq!(computed("{alpha}-{beta}", &sweep), prompt + 7 + 8 * 4);
    assert_eq!(computed("eager", &["--n", "8", "--eager"]), 8 * (prompt + 4));
}

#[test]
fn settings_that_have_no_file_of_their_own_are_refused() {
    let place = Workplace::new();
    let input = place.instructions(1);
    let cases: [(&str, &[&str], &str); 6] = [
        ("out", &["--alpha", "0.1,0.2"], "must hold {alpha}, such as out-{alpha}.jsonl"),
        ("out-{alpha}", &["--alpha", "0.1,0.2", "--beta", "0,1"], "must hold {alpha} and {beta}"),
        ("out-{beta}", &["--alpha", "0.1,0.2"], "must hold {alpha}"),
        ("out-{alpha}", &["--alpha", "0.1,0.10"], "out-0.1; list each value once"),
        (
            "{alpha}{beta}",
            &["--alpha", "0.1,0.11", "--beta", "12,2"],
            "alpha 0.1 beta 12 and alpha 0.11 beta 2 would",
        ),
        ("out-{beta}", &["--beta", "0.1,-1"], "beta is -1"),
    ];
    for (output, arguments, words) in cases {
        let said = refuse(&input, &place.path(output), arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1, "nothing but the input is there");
    let output = place.path("out");
    succeed(&input, &output, &["--n", "2", "--max-tokens", "1"]);
    let said = refuse(&input, &output, &["--max-tokens", "1"]);
    assert!(said.contains("samples was 2, now 1"), "{said}");
}
