//! Input, records, the sink and its recovery.
