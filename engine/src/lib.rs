//! The engine of a volume: ordering, quorum commit, versioned reads.
