//! Bits that flip at rest.
