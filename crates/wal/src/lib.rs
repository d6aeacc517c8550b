//! Write-ahead log: segments, group commit, recovery.
