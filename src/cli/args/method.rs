//! The parameters of the method: one setting, or a sweep over several, each with an output of its own.

use std::path::{Path, PathBuf};

use codit::contrast::Contrast;
use codit::error::{Error, Result, number};

/// Each takes a bit of memory.
const MOST_SAMPLES: i64 = 10_000;

#[derive(clap::Args)]
#[command(next_help_heading = "Method")]
pub struct Method {
    /// Keep only tokens at least ALPHA times as likely as the expert's best (0 to 1); smaller is more varied; a list such as
    /// 0.01,0.1 is a sweep
    #[arg(long, value_delimiter = ',', default_value = "0.01", allow_hyphen_values = true)]
    alpha: Vec<f64>,
    /// Weight of the amateur: how strongly what both models say alike is suppressed; 0 runs the expert alone; a list is a
    /// sweep
    #[arg(long, value_delimiter = ',', default_value = "1", allow_hyphen_values = true)]
    beta: Vec<f64>,
    /// Weight of the amateur for special tokens, including stop tokens [default: that of --beta]
    #[arg(long, value_name = "B", allow_hyphen_values = true)]
    special_token_beta: Option<f64>,
    /// The same method with one strength, (1 + G) z_e - G z_a, in place of --beta; it equals --beta G/(1+G) with the
    /// temperature divided by 1 + G
    #[arg(long, value_name = "G", conflicts_with = "beta", allow_hyphen_values = true)]
    guidance: Option<f64>,
    /// Randomness of the choice among the tokens that are kept; 0 decodes greedily
    #[arg(long, default_value_t = 1.0, allow_hyphen_values = true)]
    temperature: f64,
    /// Keep the likeliest tokens until their probabilities add up to TOP_P (over 0, at most 1)
    #[arg(long, default_value_t = 1.0, allow_hyphen_values = true)]
    top_p: f64,
    /// Keep the TOP_K likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Keep tokens at least MIN_P times as likely as the likeliest (0 to 1)
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    min_p: f64,
    /// Responses to each prompt; if more than one, the field sample_index tells them apart
    #[arg(long = "n", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST_SAMPLES))]
    pub samples: u32,
    /// Longest response, in tokens [default: the pair's, or 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Makes a run repeatable; without it a seed is drawn, shown and recorded in the manifest
    #[arg(long)]
    pub seed: Option<u64>,
    /// Continue past stop tokens; for measurements
    #[arg(long)]
    pub ignore_eos: bool,
    /// Ends a response before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Ends a response at these tokens too, a list such as 2,106
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub stop_token_ids: Vec<u32>,
    /// Records each token's log-probability under each model, as expert_logprobs and amateur_logprobs
    #[arg(long)]
    pub log_probabilities: bool,
}

/// A parameter that a sweep may list several values of.
struct Swept {
    /// What stands for it in the name of an output.
    placeholder: &'static str,
    /// Its value, in the fewest digits.
    value: fn(&Contrast) -> String,
}

const SWEPT: [Swept; 2] = [
    Swept { placeholder: "{alpha}", value: |contrast| contrast.alpha.to_string() },
    Swept { placeholder: "{beta}", value: |contrast| contrast.beta.to_string() },
];

/// Parameters, and where what is decoded by them is written.
pub struct Setting {
    pub contrast: Contrast,
    pub output: PathBuf,
}

impl Method {
    /// Warns of settings that are allowed and hardly meant.
    pub fn warn(&self) {
        let samples = self.samples;
        let greedy = [
            ("temperature 0", self.temperature == 0.0),
            ("top-k 1", self.top_k == 1),
            ("min-p 1", self.min_p >= 1.0),
            ("alpha 1", self.alpha.iter().all(|alpha| *alpha >= 1.0)),
        ];
        let greedy = greedy.into_iter().find_map(|(name, is_so)| is_so.then_some(name));
        if let Some(name) = greedy.filter(|_| samples > 1) {
            message!(
                "warning: {name} leaves nothing to chance, so the {samples} samples of a prompt will be equal copies; \
                 change it, or leave out --n"
            );
        }
    }

    /// Every combination of what is listed, those that need the amateur first: what both models have computed of a prompt
    /// serves the expert alone too.
    ///
    /// # Errors
    /// A parameter that is out of range, by the name that the user gave; two settings that `output` names one file for.
    pub fn settings(&self, output: &Path) -> Result<Vec<Setting>> {
        if let Some(guidance) = self.guidance.filter(|guidance| !guidance.is_finite() || *guidance < 0.0) {
            return Err(Error::Setting(format!("guidance is {}; it must be 0 or more", number(guidance))));
        }
        let pairs = self.alpha.iter().flat_map(|alpha| self.beta.iter().map(|beta| (*alpha, *beta)));
        // -0 is 0.
        let pairs = pairs.map(|(alpha, beta)| (alpha + 0.0, beta + 0.0));
        let mut contrasts: Vec<Contrast> = pairs.map(|(alpha, beta)| self.contrast(alpha, beta)).collect();
        contrasts.iter().try_for_each(Contrast::validate)?;
        if let Some(guidance) = self.guidance {
            for contrast in &mut contrasts {
                *contrast = contrast.with_guidance(guidance);
            }
        }
        contrasts.sort_by_key(|contrast| !contrast.needs_amateur());
        check_placeholders(&contrasts, output)?;
        let setting = |contrast| Setting { output: fill(output, &contrast), contrast };
        let settings: Vec<Setting> = contrasts.into_iter().map(setting).collect();
        check_outputs(&settings)?;
        Ok(settings)
    }

    fn contrast(&self, alpha: f64, beta: f64) -> Contrast {
        Contrast {
            alpha,
            beta,
            special_token_beta: self.special_token_beta,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
        }
    }
}

/// The name of a setting's output. One that is not UTF-8 has no placeholders.
fn fill(output: &Path, contrast: &Contrast) -> PathBuf {
    let Some(name) = output.to_str() else { return output.to_owned() };
    let fill = |name: String, swept: &Swept| name.replace(swept.placeholder, &(swept.value)(contrast));
    SWEPT.iter().fold(name.to_owned(), fill).into()
}

/// That the name of the output tells the settings apart.
fn check_placeholders(contrasts: &[Contrast], output: &Path) -> Result<()> {
    let name = output.to_str().unwrap_or_default();
    let varies = |swept: &&Swept| contrasts.iter().any(|c| (swept.value)(c) != (swept.value)(&contrasts[0]));
    let swept: Vec<&str> = SWEPT.iter().filter(varies).map(|swept| swept.placeholder).collect();
    if swept.iter().all(|placeholder| name.contains(placeholder)) {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "a sweep writes each setting to a file of its own, so the output's name must hold {}, such as out-{}.jsonl",
        swept.join(" and "),
        swept.join("-"),
    )))
}

fn check_outputs(settings: &[Setting]) -> Result<()> {
    for (index, Setting { contrast, output }) in settings.iter().enumerate() {
        if let Some(other) = settings[..index].iter().find(|other| other.output == *output) {
            let [first, second] =
                [&other.contrast, contrast].map(|c| format!("alpha {} beta {}", c.alpha, c.beta));
            return Err(Error::Setting(format!(
                "{first} and {second} would both be written to {}; list each value once, and separate the placeholders",
                output.display()
            )));
        }
    }
    Ok(())
}
