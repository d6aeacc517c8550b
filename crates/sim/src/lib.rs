//! Deterministic simulator: seeded disks with faults under the shipping code.
