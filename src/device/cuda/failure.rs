//! CUDA's errors, and the first failure of queued work, which is kept until it is reported.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::DriverError;

use crate::error::{Error, Result};

/// For `map_err`: an error that the driver could not do `what`, such as "launch a kernel", with CUDA's name of the
/// reason.
pub fn cannot(what: &str) -> impl FnOnce(DriverError) -> Error {
    move |DriverError(reason)| Error::Device(format!("CUDA could not {what}: {reason:?}"))
}

/// For `map_err`: the same for cuBLASLt.
pub fn blas_cannot(what: &str) -> impl FnOnce(CublasError) -> Error {
    move |CublasError(reason)| Error::Device(format!("cuBLASLt could not {what}: {reason:?}"))
}

/// The first failure of queued work. It stays: results that are computed after it are invalid.
#[derive(Default)]
pub struct Failure(Mutex<Option<String>>);

impl Failure {
    /// Keeps an error if it is the first, with what `cause` adds to its words.
    pub fn note<T>(&self, result: Result<T>, cause: impl FnOnce(&str) -> String) -> Option<T> {
        if let Err(error) = &result {
            let error = error.to_string();
            lock(&self.0).get_or_insert_with(|| format!("{error}{}", cause(&error)));
        }
        result.ok()
    }

    /// The first error.
    pub fn check(&self) -> Result<()> {
        lock(&self.0).clone().map_or(Ok(()), |message| Err(Error::Device(message)))
    }
}

/// Locks a mutex even if a thread panicked while it held the lock: every update of these values is one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
