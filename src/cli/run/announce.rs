//! What a run says before its first step: the models, the device, the settings, the input and the outputs.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::args::method::Method;
use crate::cli::ui::screen;
use crate::cli::ui::words::{self, count};
use codit::checkpoint::Checkpoint;
use codit::contrast::Contrast;
use codit::dataset::Manifest;

/// Digits of a commit that tell it from others.
const COMMIT_DIGITS: usize = 12;

/// A run that is about to begin.
pub struct Announcement<'a> {
    /// Whether the models are those that are built in.
    pub is_demonstration: bool,
    pub expert: &'a Checkpoint,
    pub amateur: Option<&'a Checkpoint>,
    /// Device, threads and instruction set.
    pub device: &'a str,
    pub method: &'a Method,
    pub max_tokens: u32,
    /// One for each output.
    pub contrasts: Vec<&'a Contrast>,
    pub seed: u64,
    pub input: &'a Path,
    pub rows: usize,
    /// The name of the outputs, with placeholders.
    pub output: &'a Path,
    /// Records of earlier runs.
    pub records_before: usize,
    pub records_total: usize,
}

impl Announcement<'_> {
    /// Prints it.
    pub fn print(&self) {
        screen::event(&self.report());
        if self.is_demonstration {
            screen::say_field("models", "the built-in demonstration pair: toy answers (see codit pairs)");
        } else {
            screen::say_field("expert", &named(self.expert));
            let alone = "none: with beta 0 the expert decodes alone";
            screen::say_field("amateur", &self.amateur.map_or(alone.to_owned(), named));
        }
        screen::say_field("device", self.device);
        screen::say_field("settings", &self.settings());
        let how = if self.method.seed.is_some() { "" } else { ", drawn; --seed repeats the run" };
        screen::say_field("seed", &format!("{}{how}", self.seed));
        screen::say_field("input", &path_and(self.input, &format!(": {}", count(self.rows, "row"))));
        screen::say_field("output", &path_and(self.output, &self.state()));
    }

    /// What applies to every setting of a sweep, and the lists of what differs.
    fn settings(&self) -> String {
        let first = self.contrasts[0];
        let each = |value: fn(&Contrast) -> f64| {
            let mut values: Vec<f64> = self.contrasts.iter().map(|contrast| value(contrast)).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            values.iter().map(f64::to_string).collect::<Vec<_>>().join("|")
        };
        let mut parts = vec![
            format!("alpha {}", each(|contrast| contrast.alpha)),
            format!("beta {}", each(|contrast| contrast.beta)),
            format!("temperature {}", first.temperature),
            format!("top-p {}", first.top_p),
            format!("max-tokens {}", self.max_tokens),
        ];
        let samples = self.method.samples;
        let special = first.special_token_beta.map(|beta| format!("special-token-beta {beta}"));
        parts.extend((samples > 1).then(|| format!("n {samples}")));
        parts.extend((first.top_k > 0).then(|| format!("top-k {}", first.top_k)));
        parts.extend((first.min_p > 0.0).then(|| format!("min-p {}", first.min_p)));
        parts.extend(special);
        parts.extend(self.method.ignore_eos.then(|| "ignore-eos".to_owned()));
        parts.join(", ")
    }

    /// Whether the outputs are new.
    fn state(&self) -> String {
        let files = match self.contrasts.len() {
            1 => String::new(),
            files => format!(" ({})", count(files, "file")),
        };
        match self.records_before {
            0 => format!("{files}: new, {} to make", count(self.records_total, "record")),
            before => format!("{files}: resuming after {}", count(before, "record")),
        }
    }

    /// The JSON object of the event: what docs/reference/progress.md lists.
    fn report(&self) -> Value {
        json!({
            "event": "start",
            "version": Manifest::VERSION,
            "expert": self.expert.id(),
            "amateur": self.amateur.map(Checkpoint::id),
            "device": self.device,
            "seed": self.seed,
            "samples": self.method.samples,
            "max_tokens": self.max_tokens,
            "settings": self.contrasts,
            "input": self.input.display().to_string(),
            "rows": self.rows,
            "output": self.output.display().to_string(),
            "records_before": self.records_before,
            "records_total": self.records_total,
        })
    }
}

/// A model's name, with its commit if it comes from a repository.
fn named(checkpoint: &Checkpoint) -> String {
    match checkpoint.revision() {
        Some(commit) => {
            let commit: String = commit.chars().take(COMMIT_DIGITS).collect();
            format!("{} @ {commit}", checkpoint.id())
        }
        None => fitted(checkpoint.id(), 0),
    }
}

/// A path and what there is to say of it, which a long path must not push off the line.
fn path_and(path: &Path, rest: &str) -> String {
    fitted(&path.display().to_string(), rest.len()) + rest
}

fn fitted(path: &str, rest: usize) -> String {
    match screen::room_for_field() {
        Some(room) => words::cut_middle(path, room.saturating_sub(rest)).into_owned(),
        None => path.to_owned(),
    }
}
