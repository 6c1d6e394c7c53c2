//! How the fetching of models goes, on standard error: a live bar on a terminal, elsewhere a line for each large file and
//! one now and then.

use std::time::Instant;

use serde_json::json;

use super::progress::PLAIN_INTERVAL;
use super::screen::{self, Mode};
use super::words::{self, size as bytes};
use codit::hub::Event;

/// Files from so many bytes on are worth a line.
const LARGE: u64 = 1 << 20;

/// What is shown.
#[derive(Default)]
pub struct Download {
    /// The file that comes, as it is called here.
    file: String,
    printed: Option<Instant>,
    /// When the file began to come, and how much of it there was.
    began: Option<(Instant, u64)>,
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
                    message!("{name}: another process is fetching it; waiting");
                    self.file = name;
                }
            }
            Event::FromCache { repository, commit, reason } => {
                message!(
                    "{repository}: the hub cannot be reached ({reason}); taking commit {commit} from the cache"
                );
            }
        }
    }

    fn transfer(&mut self, file: &str, done: u64, size: u64) {
        if self.file != file {
            file.clone_into(&mut self.file);
            self.printed = None;
            self.began = Some((Instant::now(), done));
        }
        let is_due = size >= LARGE && self.printed.is_none_or(|printed| printed.elapsed() >= PLAIN_INTERVAL);
        match screen::mode() {
            Mode::Bar if done >= size => screen::close_bar(),
            Mode::Bar => {
                let speed = self.speed(done, size);
                screen::show_bar(done, size, &format!("{} of {}{speed}  {file}", bytes(done), bytes(size)));
            }
            Mode::Plain if is_due => {
                note!("fetching {file}: {} of {}", bytes(done), bytes(size));
            }
            Mode::Json if is_due => {
                screen::event(
                    &json!({"event": "download", "file": file, "bytes": done, "bytes_total": size}),
                );
            }
            _ => return,
        }
        self.printed = Some(Instant::now());
    }

    /// Speed and time left, as soon as they are known.
    fn speed(&self, done: u64, size: u64) -> String {
        let Some((began, before)) = self.began else { return String::new() };
        let pace = done.saturating_sub(before) as f64 / began.elapsed().as_secs_f64();
        if !pace.is_finite() || pace < 1.0 {
            return String::new();
        }
        let left = words::time(size.saturating_sub(done) as f64 / pace);
        format!(", {}/s, {left} left", bytes(pace as u64))
    }
}
