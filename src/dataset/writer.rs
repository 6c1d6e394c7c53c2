//! The output file: one writer, whole records, exact resumption.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::input::Input;
use super::manifest::{Manifest, sync_folder_of};
use super::record::Record;
use super::resume::{Done, recover};
use crate::error::{Error, Result};

/// A crash of the system (not of the program) loses at most the records of this time.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The only writer of an output. It holds the lock until it is dropped or the process ends.
#[derive(Debug)]
pub struct Sink {
    path: PathBuf,
    file: Locked,
    /// Length of the whole records, in bytes.
    end: u64,
    seed: u64,
    synced: Instant,
}

/// A file that this process has locked.
#[derive(Debug)]
struct Locked(File);

impl Deref for Locked {
    type Target = File;
    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    /// Closing the file is not enough: a child process that is being started may hold a copy of it and keep it
    /// locked.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Sink {
    /// Opens `output` for the run that `manifest` describes, to begin it or to resume it.
    ///
    /// An output with records is resumed if the manifest beside it agrees. A torn end is cut off and computed again.
    /// The manifest is written durably before the first record.
    ///
    /// # Errors
    /// - [`Error::Setting`] for no samples;
    /// - [`Error::File`] if the output is no regular file, is the input, is being written by another run, or has no
    ///   manifest or that of a run under other settings (each named);
    /// - [`Error::Line`] for a damaged line other than the last, an id that is not in the input, or two records of
    ///   one sample;
    /// - [`Error::Io`] if the system refuses.
    pub fn open(output: impl AsRef<Path>, input: &Input, manifest: &Manifest) -> Result<(Self, Done)> {
        let output = output.as_ref();
        if manifest.samples == 0 {
            return Err(Error::Setting("samples is 0; it must be 1 or more".into()));
        }
        let file = open_and_lock(output, input)?;
        let path = fs::canonicalize(output).map_err(Error::io(output, "cannot resolve"))?;
        let length = file.metadata().map_err(Error::io(output, "cannot stat"))?.len();
        let seed = agree(&path, length, input, manifest)?;
        if length == 0 {
            sync_folder_of(&path)?;
        }
        let (done, end) = recover(&path, &file, input, manifest.samples)?;
        if end < length {
            let cut = file.set_len(end).and_then(|()| file.sync_all());
            cut.map_err(Error::io(output, "cannot cut off the torn end"))?;
        }
        Ok((Self { path: output.to_owned(), file, end, seed, synced: Instant::now() }, done))
    }

    /// The seed of the run: the user's, that of the resumed run, or one just drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Writes `record` as one line.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written as a whole, for example on a full disk. No part of it remains then, and
    /// the run can be resumed.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let line = record.to_line()?;
        if let Err(error) = self.file.write_all_at(&line, self.end) {
            // If even this fails, resuming cuts the line off.
            let _ = self.file.set_len(self.end);
            let action = "cannot write; the records so far are whole, and the same command resumes the run";
            return Err(Error::io(&self.path, action)(error));
        }
        self.end += line.len() as u64;
        if self.synced.elapsed() >= SYNC_INTERVAL { self.sync() } else { Ok(()) }
    }

    /// Makes all records so far survive a crash of the system. This happens once a second while records are appended.
    ///
    /// # Errors
    /// If the system cannot, or if another program has removed or changed the output.
    pub fn sync(&mut self) -> Result<()> {
        let metadata = self.file.metadata().map_err(Error::io(&self.path, "cannot stat"))?;
        if metadata.nlink() == 0 || metadata.len() != self.end {
            let message =
                "another program has removed or changed it during the run; run the same command again";
            return Err(Error::io(&self.path, "cannot go on")(io::Error::other(message)));
        }
        self.file.sync_data().map_err(Error::io(&self.path, "cannot sync"))?;
        self.synced = Instant::now();
        Ok(())
    }

    /// Ends the run: syncs the file, then releases the lock.
    ///
    /// # Errors
    /// Those of [`Sink::sync`].
    pub fn close(mut self) -> Result<()> {
        self.sync()
    }
}

fn open_and_lock(output: &Path, input: &Input) -> Result<Locked> {
    match fs::metadata(output) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(Error::file(output, "a folder; give a file to write"));
        }
        Ok(metadata) if !metadata.is_file() => {
            let message =
                "not a regular file, and a run that is killed must find its records again; give a file";
            return Err(Error::file(output, message));
        }
        Ok(metadata) if input.is(&metadata) => {
            return Err(Error::file(output, "the input itself; give another output"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.exists()) {
                return Err(Error::file(folder, "no such folder; make it, or give another output"));
            }
        }
        // If this fails, opening the file gives the reason.
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(output);
    let file = file.map_err(Error::io(output, "cannot open for writing"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let message = "another run is writing to it; wait until it has ended, or give another output";
            return Err(Error::file(output, message));
        }
        Err(TryLockError::Error(error)) => return Err(Error::io(output, "cannot lock")(error)),
    }
    let file = Locked(file);
    // Between opening and locking, the file may have been replaced.
    let (locked, named) = (file.metadata(), fs::metadata(output));
    let locked = locked.map_err(Error::io(output, "cannot stat"))?;
    if !named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
        return Err(Error::file(output, "was replaced while it was being opened; run the command again"));
    }
    Ok(file)
}

/// Checks that the manifest beside the output at `path` is this run's; returns the seed.
fn agree(path: &Path, length: u64, input: &Input, manifest: &Manifest) -> Result<u64> {
    let manifest_path = Manifest::path(path);
    let earlier = Manifest::read(&manifest_path)?;
    // A run whose limit is raised goes on as a run with the higher limit, as which it is written down again.
    let grows = match &earlier {
        Some(earlier) if earlier.input.limit != manifest.input.limit => input.extends(&earlier.input)?,
        _ => false,
    };
    let earlier = earlier.map(|mut earlier| {
        if grows {
            earlier.input.clone_from(&manifest.input);
        }
        earlier
    });
    let differences = earlier.as_ref().map(|earlier| manifest.differences(earlier));
    match (earlier, differences) {
        (Some(earlier), Some(differences)) if differences.is_empty() => {
            if let Some(seed) = earlier.seed {
                if grows {
                    Manifest { seed: Some(seed), ..manifest.clone() }.write(&manifest_path)?;
                }
                return Ok(seed);
            }
        }
        // No record exists yet, so no records can be mixed.
        _ if length == 0 => {}
        (_, None) => {
            let message = "holds something but has no manifest beside it, so that it cannot be resumed; give another \
                           output";
            return Err(Error::file(path, message));
        }
        (_, Some(differences)) => {
            let message = format!(
                "of a run under other settings: {}. Give the same settings to resume it, or another output",
                differences.join("; ")
            );
            return Err(Error::file(path, message));
        }
    }
    let seed = manifest.seed.unwrap_or_else(draw_seed);
    Manifest { seed: Some(seed), ..manifest.clone() }.write(&manifest_path)?;
    Ok(seed)
}

/// A seed of 32 bits, short enough for a user to read and type.
fn draw_seed() -> u64 {
    RandomState::new().hash_one(0) >> 32
}
