//! Cross-crate tests: real clients, crashes, conformance.
