//! The holdfast daemon: wires disks, replicas, engines and frontends.
