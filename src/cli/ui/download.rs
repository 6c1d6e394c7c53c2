//! How the fetching of models goes, on standard error: a live bar on a terminal, elsewhere a line for each large file and
//! one now and then.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::ui::progress::PLAIN_INTERVAL;
use codit::hub::Event;

/// Files from so many bytes on are worth a line.
const LARGE: u64 = 1 << 20;

/// What is shown.
#[derive(Default)]
pub struct Download {
    /// The file that comes, as it is called here.
    file: String,
    bar: Option<ProgressBar>,
    printed: Option<Instant>,
}

impl Download {
    /// Shows `event`.
    pub fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Transfer { repository, file, done, size } => {
                self.transfer(&format!("{repository} {file}"), done, size);
            }
            Event::Waiting { repository, file } => {
                let name = format!("{repository} {file}");
                // Said once, and not again at every look.
                if self.file != name {
                    self.say(&format!("{name}: another process is fetching it; waiting"));
                    self.file = name;
                }
            }
            Event::FromCache { repository, commit, reason } => {
                self.say(&format!(
                    "{repository}: the hub cannot be reached ({reason}); taking commit {commit} from the cache"
                ));
            }
        }
    }

    fn transfer(&mut self, file: &str, done: u64, size: u64) {
        if self.file != file {
            file.clone_into(&mut self.file);
            self.printed = None;
            self.bar = std::io::stderr().is_terminal().then(|| bar(file));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_length(size);
                bar.set_position(done);
                if done >= size {
                    bar.finish_and_clear();
                }
            }
            None if size >= LARGE
                && self.printed.is_none_or(|printed| printed.elapsed() >= PLAIN_INTERVAL) =>
            {
                self.printed = Some(Instant::now());
                message!("fetching {file}: {} of {}", HumanBytes(done), HumanBytes(size));
            }
            None => {}
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| message!("{text}")),
            None => message!("{text}"),
        }
    }
}

fn bar(file: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    let style = "{bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(file.to_owned());
    bar
}
