//! The output file: one writer, whole records, exact resumption.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::input::Input;
use super::manifest::Manifest;
use super::output_name::check_name;
use super::record::Record;
use super::replacement::{Replacement, sync_folder_of};
use super::resume::{Done, copy_answered, recover};
use crate::error::{Error, Result};

/// A crash of the system (not of the program) loses at most the records of this time.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The only writer of an output. It holds the lock until it is dropped or the process ends.
///
/// It notices another program that changes the output: before each record the file must be the one that was opened,
/// and as long as what was written. A manifest that another program removes or changes is written again.
#[derive(Debug)]
pub struct Sink {
    /// As the user gave it.
    path: PathBuf,
    /// The file that a symbolic link leads to.
    target: PathBuf,
    /// Open for appending: where another program cuts the file off, no write leaves a hole.
    file: Locked,
    /// Length of the whole records, in bytes.
    end: u64,
    seed: u64,
    /// The bytes of the manifest's file.
    manifest: Vec<u8>,
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
    /// - those of [`Sink::check`];
    /// - [`Error::File`] if the output is being written by another run, or has no manifest or that of a run under other
    ///   settings (each named);
    /// - [`Error::Line`] for a damaged line other than the last, an id that is not in the input, or two records of
    ///   one sample;
    /// - [`Error::Io`] if the system refuses.
    pub fn open(output: impl AsRef<Path>, input: &Input, manifest: &Manifest) -> Result<(Self, Done)> {
        let output = output.as_ref();
        if manifest.samples == 0 {
            return Err(Error::Setting("samples is 0; it must be 1 or more".into()));
        }
        let is_new = fs::symlink_metadata(output).is_err();
        let file = open_and_lock(output, input)?;
        let opened = Self::resume(output, file, input, manifest);
        if opened.is_err() && is_new && fs::metadata(output).is_ok_and(|metadata| metadata.len() == 0) {
            // A run that is refused leaves nothing.
            let _ = fs::remove_file(output);
        }
        opened
    }

    fn resume(output: &Path, file: Locked, input: &Input, manifest: &Manifest) -> Result<(Self, Done)> {
        let target = fs::canonicalize(output).map_err(Error::io(output, "cannot resolve"))?;
        let length = file.metadata().map_err(Error::io(output, "cannot stat"))?.len();
        let seed = agree(&target, length, input, manifest)?;
        if length == 0 {
            sync_folder_of(&target)?;
        }
        let (done, end) = recover(&target, &file, input, manifest.samples)?;
        if end < length {
            let cut = file.set_len(end).and_then(|()| file.sync_all());
            cut.map_err(Error::io(output, "cannot cut off the torn end"))?;
        }
        let manifest = Manifest::path(&target);
        let manifest = fs::read(&manifest).map_err(Error::io(&manifest, "cannot read"))?;
        let path = output.to_owned();
        Ok((Self { path, target, file, end, seed, manifest, synced: Instant::now() }, done))
    }

    /// Refuses an output that no run can write, before any work: a folder, the input, an output whose manifest or
    /// temporary file would take the input's place, a pipe, a name that promises another format than JSON lines.
    ///
    /// # Errors
    /// [`Error::File`] with the remedy.
    pub fn check(output: impl AsRef<Path>, input: &Input) -> Result<()> {
        let output = output.as_ref();
        check_name(output)?;
        let manifest = Manifest::path(output);
        let temporary = [output, &manifest].map(Replacement::temporary_of);
        let mut beside = [manifest].into_iter().chain(temporary);
        if let Some(path) = beside.find(|path| fs::metadata(path).is_ok_and(|found| input.is(&found))) {
            return Err(Error::file(
                path,
                "the input, and the run writes a file of this name; give another output",
            ));
        }
        match fs::metadata(output) {
            Ok(metadata) if metadata.is_dir() => Err(Error::file(output, "a folder; give a file to write")),
            Ok(metadata) if !metadata.is_file() => {
                let message =
                    "not a regular file, and a run that is killed must find its records again; give a file";
                Err(Error::file(output, message))
            }
            Ok(metadata) if input.is(&metadata) => {
                Err(Error::file(output, "the input itself; give another output"))
            }
            // If there is an error and the folder is one, opening the file gives the reason.
            Err(_) => match output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                Some(folder) if !folder.exists() => {
                    Err(Error::file(folder, "no such folder; make it, or give another output"))
                }
                Some(folder) if !folder.is_dir() => {
                    Err(Error::file(folder, "not a folder; give another output"))
                }
                _ => Ok(()),
            },
            Ok(_) => Ok(()),
        }
    }

    /// Removes the records of errors from the output, so that they are made again. Returns how many there were.
    ///
    /// All other records are copied to a file that then takes the output's place, so that a crash loses none.
    ///
    /// # Errors
    /// Those of [`Sink::append`], and [`Error::File`] if something has the name of the temporary file.
    pub fn remove_failed(&mut self, done: &mut Done, input: &Input) -> Result<usize> {
        let failed = done.recovery().failed;
        if failed == 0 {
            return Ok(0);
        }
        self.check_unchanged()?;
        let (replacement, file) = Replacement::create(&self.target)?;
        let file = lock(file, replacement.temporary())?;
        let old = self.file.metadata().map_err(Error::io(&self.path, "cannot stat"))?;
        file.set_permissions(old.permissions()).map_err(Error::io(&self.path, "cannot set permissions"))?;
        // Only the superuser may give a file to another user; a copy of one's own is right in any case.
        let _ = fchown(&*file, Some(old.uid()), Some(old.gid()));
        let end = copy_answered((&self.target, &self.file), (replacement.temporary(), &file), input, done)?;
        replacement.commit(&file)?;
        (self.file, self.end) = (file, end);
        Ok(failed)
    }

    /// The seed of the run: the user's, that of the resumed run, or one just drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Writes `record` as one line.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written as a whole, for example on a full disk, or if another program has removed
    /// or changed the output. No part of it remains then, and the run can be resumed.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let line = record.to_line()?;
        self.check_unchanged()?;
        if let Err(error) = (&*self.file).write_all(&line) {
            // If even this fails, resuming cuts the line off. Nothing is lengthened: another program may have cut the
            // file off in the meantime.
            if self.file.metadata().is_ok_and(|metadata| metadata.len() > self.end) {
                let _ = self.file.set_len(self.end);
            }
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
        self.check_unchanged()?;
        self.keep_manifest()?;
        self.file.sync_data().map_err(Error::io(&self.path, "cannot sync"))?;
        self.synced = Instant::now();
        Ok(())
    }

    /// Writes the manifest again if it is not what it was, without which the run could not be resumed.
    fn keep_manifest(&self) -> Result<()> {
        let path = Manifest::path(&self.target);
        let is_there = fs::symlink_metadata(&path)
            .is_ok_and(|found| found.len() == self.manifest.len() as u64)
            && fs::read(&path).is_ok_and(|found| found == self.manifest);
        if is_there { Ok(()) } else { Replacement::write(&path, &self.manifest) }
    }

    /// # Errors
    /// [`Error::Io`] if the output is not the file that this run opened, or not as long as what it wrote.
    fn check_unchanged(&self) -> Result<()> {
        let own = self.file.metadata().map_err(Error::io(&self.path, "cannot stat"))?;
        let change = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is gone".to_owned(),
            Err(error) => return Err(Error::io(&self.path, "cannot stat")(error)),
            Ok(named) if !is_same(&named, &own) => "another file is in its place".to_owned(),
            Ok(_) if own.len() != self.end => {
                format!("it has {} bytes, and this run left {}", own.len(), self.end)
            }
            Ok(_) => return Ok(()),
        };
        let message = format!(
            "another program has removed or changed it during the run ({change}); nothing was written after that; end \
             that program and run the same command again, which goes on or says what to repair"
        );
        Err(Error::io(&self.path, "cannot go on")(io::Error::other(message)))
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
    Sink::check(output, input)?;
    let file = OpenOptions::new().read(true).append(true).create(true).open(output);
    let file = lock(file.map_err(Error::io(output, "cannot open for writing"))?, output)?;
    // Between opening and locking, the file may have been replaced.
    let (locked, named) = (file.metadata(), fs::metadata(output));
    let locked = locked.map_err(Error::io(output, "cannot stat"))?;
    if !named.is_ok_and(|named| is_same(&named, &locked)) {
        return Err(Error::file(output, "was replaced while it was being opened; run the command again"));
    }
    Ok(file)
}

fn lock(file: File, path: &Path) -> Result<Locked> {
    match file.try_lock() {
        Ok(()) => Ok(Locked(file)),
        Err(TryLockError::WouldBlock) => {
            let message = "another run is writing to it; wait until it has ended, or give another output";
            Err(Error::file(path, message))
        }
        Err(TryLockError::Error(error)) => Err(Error::io(path, "cannot lock")(error)),
    }
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Checks that the manifest beside the output at `path` is this run's; returns the seed.
fn agree(path: &Path, length: u64, input: &Input, manifest: &Manifest) -> Result<u64> {
    let earlier = Manifest::beside(path)?;
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
                    Manifest { seed: Some(seed), ..manifest.clone() }.write(path)?;
                } else {
                    Manifest::rename_old(path);
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
    Manifest { seed: Some(seed), ..manifest.clone() }.write(path)?;
    Ok(seed)
}

/// A seed of 32 bits, short enough for a user to read and type.
fn draw_seed() -> u64 {
    RandomState::new().hash_one(0) >> 32
}
