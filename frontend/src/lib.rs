//! Frontends that serve a volume to clients: NBD.
