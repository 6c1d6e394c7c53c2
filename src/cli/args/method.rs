//! The parameters of the method: one setting, or a sweep over several, each with an output of its own.

use std::path::{Path, PathBuf};

use codit::contrast::Contrast;
use codit::error::{Error, Result};

/// Each takes a bit of memory.
const MOST_SAMPLES: i64 = 10_000;

#[derive(clap::Args)]
#[command(next_help_heading = "Method")]
pub struct Method {
    /// A token is plausible if the expert finds it at least ALPHA times as likely as its most likely token [0..1]; only
    /// plausible tokens are drawn; a list such as 0.01,0.1 is a sweep
    #[arg(long, value_delimiter = ',', default_value = "0.01")]
    alpha: Vec<f64>,
    /// Weight of the amateur's log-probability; 0 runs the expert alone; a list is a sweep
    #[arg(long, value_delimiter = ',', default_value = "1")]
    beta: Vec<f64>,
    /// Weight of the amateur for special tokens, including stop tokens [default: that of --beta]
    #[arg(long, value_name = "B")]
    special_token_beta: Option<f64>,
    /// Contrast as (1 + G) z_e - G z_a, which equals --beta G/(1+G) with the temperature divided by 1 + G
    #[arg(long, value_name = "G", conflicts_with = "beta")]
    guidance: Option<f64>,
    /// Divides the scores before the softmax; 0 takes the token with the best score
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Keeps the likeliest tokens until their probabilities add up to this (0..1]
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Keeps this many of the likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Keeps tokens at least MIN_P times as likely as the most likely token [0..1]
    #[arg(long, default_value_t = 0.0)]
    min_p: f64,
    /// Responses to each prompt; if more than one, `sample_index` tells them apart
    #[arg(long = "n", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST_SAMPLES))]
    pub samples: u32,
    /// Longest response, in tokens [default: the pair's, or 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Makes a run repeatable; without it a seed is drawn and recorded in the manifest
    #[arg(long)]
    pub seed: Option<u64>,
    /// Continues past stop tokens; for measurements
    #[arg(long)]
    pub ignore_eos: bool,
    /// Ends a response before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Ends a response at these tokens too, a list such as 2,106
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub stop_token_ids: Vec<u32>,
    /// Encodes control tokens that a prompt's text contains as plain text, as transformers does on request
    #[arg(long, help_heading = "Prompts")]
    pub sanitize_control_tokens: bool,
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
    /// Every combination of what is listed, those that need the amateur first: what both models have computed of a prompt
    /// serves the expert alone too.
    ///
    /// # Errors
    /// A parameter that is out of range; two settings that `output` names one file for.
    pub fn settings(&self, output: &Path) -> Result<Vec<Setting>> {
        let pairs = self.alpha.iter().flat_map(|alpha| self.beta.iter().map(|beta| (*alpha, *beta)));
        let mut contrasts: Vec<Contrast> = pairs.map(|(alpha, beta)| self.contrast(alpha, beta)).collect();
        contrasts.iter().try_for_each(Contrast::validate)?;
        contrasts.sort_by_key(|contrast| !contrast.needs_amateur());
        check_placeholders(&contrasts, output)?;
        let setting = |contrast| Setting { output: fill(output, &contrast), contrast };
        let settings: Vec<Setting> = contrasts.into_iter().map(setting).collect();
        check_outputs(&settings)?;
        Ok(settings)
    }

    fn contrast(&self, alpha: f64, beta: f64) -> Contrast {
        let contrast = Contrast {
            alpha,
            beta,
            special_token_beta: self.special_token_beta,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
        };
        match self.guidance {
            Some(guidance) => contrast.with_guidance(guidance),
            None => contrast,
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
