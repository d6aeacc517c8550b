//! Benchmarks of Holdfast beside its peers.
