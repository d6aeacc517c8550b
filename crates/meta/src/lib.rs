//! The catalogue of volumes, replica sets and epochs.
