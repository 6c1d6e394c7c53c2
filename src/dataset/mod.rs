//! Instructions in, records out: input formats, output records, the crash-safe sink, resume, the run manifest.
