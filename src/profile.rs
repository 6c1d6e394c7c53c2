//! Named ranges on a profiler's timeline, in NVIDIA's protocol NVTX 3 (header `nvtx3/nvtxDetail/nvtxTypes.h`).
//!
//! A profiler such as `nsys profile --trace=cuda,nvtx` names a library in `NVTX_INJECTION64_PATH`. The first range
//! loads this library and asks it to write its functions into our tables. Without a profiler, a range costs one
//! pointer check.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{forget, transmute};
use std::ptr::{from_ref, null, null_mut};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A range of this thread's time. It ends when it is dropped. Ranges nest.
#[must_use = "a range ends when it is dropped"]
pub struct Range {
    pop: Option<Pop>,
    /// A range must end on the thread where it began, so it is not `Send`.
    _thread: PhantomData<*const ()>,
}

/// Begins a range.
pub fn range(name: &'static CStr) -> Range {
    let pop = PROFILER.as_ref().map(|profiler| {
        // SAFETY: `push` is the profiler's nvtxRangePushA; the name is static and ends with a zero byte.
        unsafe { (profiler.push)(name.as_ptr()) };
        profiler.pop
    });
    Range { pop, _thread: PhantomData }
}

impl Drop for Range {
    fn drop(&mut self) {
        if let Some(pop) = self.pop {
            // SAFETY: `pop` is the profiler's nvtxRangePop, which takes no arguments.
            unsafe { pop() };
        }
    }
}

type Push = unsafe extern "C" fn(*const c_char) -> c_int;
type Pop = unsafe extern "C" fn() -> c_int;
type Initialize = unsafe extern "C" fn(extern "C" fn(u32) -> *const c_void) -> c_int;

struct Profiler {
    push: Push,
    pop: Pop,
}

static PROFILER: LazyLock<Option<Profiler>> = LazyLock::new(Profiler::load);

impl Profiler {
    fn load() -> Option<Self> {
        let path = std::env::var_os("NVTX_INJECTION64_PATH")?;
        // SAFETY: by the protocol, the library that the user's profiler names may be loaded, and this function of it
        // has this type and takes a function that returns the tables.
        unsafe {
            let library = libloading::Library::new(path).ok()?;
            let initialize: Initialize = *library.get(b"InitializeInjectionNvtx2\0").ok()?;
            if initialize(export_table) == 0 {
                return None;
            }
            forget(library); // keeps the library loaded, because ranges call its functions until the program ends
        }
        let function = |index: usize| {
            let function = FUNCTIONS[CORE as usize][index].load(Ordering::Acquire);
            (!function.is_null()).then_some(function)
        };
        let (push, pop) = (function(RANGE_PUSH_A)?, function(RANGE_POP)?);
        // SAFETY: by the protocol, these two functions have these types.
        Some(unsafe {
            Self { push: transmute::<*mut c_void, Push>(push), pop: transmute::<*mut c_void, Pop>(pop) }
        })
    }
}

// NvtxExportTableID, NvtxCallbackModule and NvtxCallbackIdCore of nvtxTypes.h
const CALLBACKS: u32 = 1;
const VERSION_INFO: u32 = 3;
const CORE: u32 = 1;
const MODULES: usize = 7;
const RANGE_PUSH_A: usize = 9;
const RANGE_POP: usize = 11;
/// The number of functions of the largest module. Number 0 is unused.
const MODULE_FUNCTIONS: usize = 16;

/// Functions that the profiler fills in, one row per module of the API. We call two of them.
static FUNCTIONS: [[AtomicPtr<c_void>; MODULE_FUNCTIONS]; MODULES] =
    [const { [const { AtomicPtr::new(null_mut()) }; MODULE_FUNCTIONS] }; MODULES];

/// Pointers to the entries of [`FUNCTIONS`], one row per module, each ending with null. The profiler reads them.
static TABLES: LazyLock<[[AtomicPtr<AtomicPtr<c_void>>; MODULE_FUNCTIONS + 1]; MODULES]> =
    LazyLock::new(|| {
        let place = |module: usize, index: usize| match FUNCTIONS[module].get(index) {
            Some(function) if index > 0 => from_ref(function).cast_mut(),
            _ => null_mut(),
        };
        std::array::from_fn(|module| std::array::from_fn(|index| AtomicPtr::new(place(module, index))))
    });

/// `NvtxExportTableCallbacks`
#[repr(C)]
struct Callbacks {
    bytes: usize,
    module_functions: extern "C" fn(u32, *mut *const c_void, *mut u32) -> c_int,
}

/// `NvtxExportTableVersionInfo`
#[repr(C)]
struct VersionInfo {
    bytes: usize,
    version: u32,
    reserved: u32,
    set_injection_version: extern "C" fn(u32),
}

/// `nvtxGetExportTable`
extern "C" fn export_table(id: u32) -> *const c_void {
    static CALLBACK_TABLE: Callbacks = Callbacks { bytes: size_of::<Callbacks>(), module_functions };
    static VERSION_TABLE: VersionInfo =
        VersionInfo { bytes: size_of::<VersionInfo>(), version: 3, reserved: 0, set_injection_version };
    match id {
        CALLBACKS => from_ref(&CALLBACK_TABLE).cast(),
        VERSION_INFO => from_ref(&VERSION_TABLE).cast(),
        _ => null(),
    }
}

/// `GetModuleFunctionTable`
extern "C" fn module_functions(module: u32, table: *mut *const c_void, count: *mut u32) -> c_int {
    let Some(functions) = TABLES.get(module as usize).filter(|_| module > 0) else { return 0 };
    if !table.is_null() {
        // SAFETY: the pointer is not null, so the profiler points it at writable memory for a pointer.
        unsafe { *table = functions.as_ptr().cast() };
    }
    if !count.is_null() {
        // SAFETY: the pointer is not null, so the profiler points it at writable memory for a number.
        unsafe { *count = MODULE_FUNCTIONS as u32 };
    }
    1
}

/// `SetInjectionNvtxVersion`
extern "C" fn set_injection_version(_: u32) {}
