//! Outputs that earlier runs have completed.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::cli::args::method::Setting;
use crate::cli::ui::screen;
use crate::cli::ui::words::count;
use serde_json::json;

/// Whether the file at `path` has so many lines. One that cannot be read has none.
pub fn has_lines(path: &Path, lines: usize) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let mut buffer = vec![0; 1 << 20];
    let mut found = 0;
    while let Ok(length @ 1..) = file.read(&mut buffer) {
        found += buffer[..length].iter().map(|byte| usize::from(*byte == b'\n')).sum::<usize>();
    }
    found >= lines
}

/// The outputs of a run, as they are called in one line.
pub struct Outputs<'a> {
    /// One output, or the name with placeholders.
    name: &'a Path,
    files: usize,
}

impl<'a> Outputs<'a> {
    /// Those of `settings`, of which `name` is the name with placeholders.
    pub fn of(settings: &'a [Setting], name: &'a Path) -> Self {
        match settings {
            [only] => Self { name: &only.output, files: 1 },
            several => Self { name, files: several.len() },
        }
    }

    /// Says that there is nothing to do but, if the user wants it, to make the failed records again.
    pub fn say_complete(&self, records: usize, failed: usize) {
        screen::event(&json!({"event": "complete", "records": records, "errors": failed}));
        let records = count(records, "record");
        if failed == 0 {
            note!("{self}: already complete: {records}, nothing to do");
        } else {
            let errors = count(failed, "error");
            note!("{self}: already complete: {records}, {errors}; --retry-errors makes those again");
        }
    }
}

impl fmt::Display for Outputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.display();
        if self.files == 1 {
            write!(f, "{name}")
        } else {
            write!(f, "{} ({name})", count(self.files, "file"))
        }
    }
}
