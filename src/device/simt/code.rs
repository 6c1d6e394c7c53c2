//! What the kernels are run from: the host's build of them, or the PTX that nvcc made of them (`kernels/ptx.sh`).

use std::env;
use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

/// Environment variable: `host`, which is the default, or `ptx`.
pub const CODE_VARIABLE: &str = "CODIT_SIMT";
/// Environment variable: the folder with the PTX.
pub const FOLDER_VARIABLE: &str = "CODIT_PTX";

// kernels/simt/simt.h
unsafe extern "C" {
    fn codit_ptx_load(folder: *const c_char, message: *mut c_char, capacity: usize) -> *mut Loaded;
    fn codit_ptx_free(loaded: *mut Loaded);
}

/// `codit_ptx` of `kernels/simt/simt.h`.
#[repr(C)]
pub(super) struct Loaded {
    _private: [u8; 0],
}

/// The code of the kernels.
#[derive(Debug, Clone)]
pub enum Code {
    /// What the host's compiler built.
    Host,
    /// What nvcc compiled, interpreted.
    Ptx(Arc<Ptx>),
}

impl Code {
    /// The code that the environment chooses, which is read once.
    ///
    /// # Errors
    /// If a variable is wrong, or if the folder has no PTX that can be run.
    pub fn chosen() -> Result<Self> {
        static CHOSEN: OnceLock<std::result::Result<Code, String>> = OnceLock::new();
        CHOSEN.get_or_init(choose).clone().map_err(Error::Setting)
    }
}

fn choose() -> std::result::Result<Code, String> {
    let name = env::var_os(CODE_VARIABLE).unwrap_or_default();
    match name.to_str() {
        Some("" | "host") => Ok(Code::Host),
        Some("ptx") => {
            let folder = env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).ok_or_else(|| {
                format!("{CODE_VARIABLE} is ptx, so {FOLDER_VARIABLE} must name a folder that kernels/ptx.sh made")
            })?;
            Ok(Code::Ptx(Arc::new(Ptx::load(Path::new(&folder))?)))
        }
        _ => Err(format!("{CODE_VARIABLE} is {}; it must be host or ptx", name.display())),
    }
}

/// The kernels of a folder of PTX, decoded.
#[derive(Debug)]
pub struct Ptx {
    loaded: NonNull<Loaded>,
}

// SAFETY: nothing changes the program after it is loaded.
unsafe impl Send for Ptx {}
// SAFETY: as above.
unsafe impl Sync for Ptx {}

impl Ptx {
    /// Reads all files `NAME.ptx` of a folder.
    ///
    /// # Errors
    /// If the folder or a file cannot be read, or if a file is malformed or has an instruction that is not implemented.
    /// The message names the file and the line.
    pub fn load(folder: &Path) -> std::result::Result<Self, String> {
        let refused = |what: &str| format!("the PTX cannot be run: {what}");
        let path = CString::new(folder.as_os_str().as_encoded_bytes())
            .map_err(|_| refused("the folder's name has a zero byte"))?;
        let mut message = [0_u8; 1024];
        // SAFETY: both pointers are valid for the call, which writes at most `message.len()` bytes and the zero byte is
        // one of them.
        let loaded = unsafe { codit_ptx_load(path.as_ptr(), message.as_mut_ptr().cast(), message.len()) };
        let text = CStr::from_bytes_until_nul(&message).unwrap_or_default().to_string_lossy();
        NonNull::new(loaded).map(|loaded| Self { loaded }).ok_or_else(|| refused(&text))
    }

    pub(super) fn as_ptr(&self) -> *const Loaded {
        self.loaded.as_ptr()
    }
}

impl Drop for Ptx {
    fn drop(&mut self) {
        // SAFETY: the pointer came from codit_ptx_load, and drop runs once.
        unsafe { codit_ptx_free(self.loaded.as_ptr()) }
    }
}
