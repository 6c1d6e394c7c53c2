//! `codit stats`: what datasets hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::ui::output::Output;
use crate::cli::ui::table::table_of;
use crate::cli::ui::words;
use codit::dataset::{Statistics, Summary};
use codit::error::Result;

#[derive(clap::Args)]
pub struct Args {
    /// Datasets that `codit synth` has written; one that is being written may be among them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print exact numbers as JSON
    #[arg(long)]
    json: bool,
}

/// The statistics of a file.
#[derive(Serialize)]
struct Report {
    file: String,
    #[serde(flatten)]
    summary: Summary,
}

/// Prints the statistics of each file.
pub fn run(args: &Args) -> Result<ExitCode> {
    let reports = args.files.iter().map(|file| report(file)).collect::<Result<Vec<_>>>()?;
    if args.json {
        Output.write_json(&reports)?;
    } else {
        write!(Output, "{}", table(&reports, true))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the statistics of a sweep's datasets, which alpha and beta name. A single dataset is no sweep.
///
/// # Errors
/// Those of [`Statistics::of_file`], and of standard output.
pub fn print_sweep(outputs: &[PathBuf]) -> Result<()> {
    if outputs.len() < 2 {
        return Ok(());
    }
    let mut reports = outputs.iter().map(|output| report(output)).collect::<Result<Vec<_>>>()?;
    let place = |report: &Report| [report.summary.alpha, report.summary.beta].map(Option::unwrap_or_default);
    reports.sort_by(|one, other| {
        let [one, other] = [place(one), place(other)];
        one[0].total_cmp(&other[0]).then(one[1].total_cmp(&other[1]))
    });
    write!(Output, "{}", table(&reports, false))
}

fn report(file: &Path) -> Result<Report> {
    Ok(Report { file: file.display().to_string(), summary: Statistics::of_file(file)?.summary() })
}

/// One line a file. Columns of log-probabilities are there if a file has them.
fn table(reports: &[Report], has_files: bool) -> String {
    let logprobs = |summary: &Summary| [summary.expert_mean_logprob, summary.amateur_mean_logprob];
    let has_logprobs = reports.iter().any(|report| logprobs(&report.summary) != [None, None]);
    let mut header = if has_files { vec!["file"] } else { vec![] };
    header.extend([
        "alpha",
        "beta",
        "records",
        "finished",
        "cut",
        "errors",
        "empty",
        "repetitive",
        "tokens",
        "mean",
    ]);
    if has_logprobs {
        header.extend(["expert", "amateur"]);
    }
    let decimals =
        |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let row = |Report { file, summary }: &Report| {
        let mut row = if has_files { vec![words::harmless(file)] } else { vec![] };
        row.extend([summary.alpha, summary.beta].map(|v| v.map_or("-".to_owned(), |v| v.to_string())));
        let counts = [summary.records, summary.finished, summary.cut, summary.errors, summary.empty];
        row.extend(counts.map(|count| count.to_string()));
        row.push(summary.repetitive_share.map_or("-".to_owned(), |share| format!("{:.1}%", 100.0 * share)));
        row.extend([summary.tokens.to_string(), decimals(summary.mean_tokens, 1)]);
        if has_logprobs {
            row.extend(logprobs(summary).map(|mean| decimals(mean, 3)));
        }
        row
    };
    let mut table = table_of(header, usize::from(has_files), reports.iter().map(row));
    table.push('\n');
    table
}
