//! Frontends: what turns a client protocol into requests to a
//! [`BlockDevice`](holdfast_block::BlockDevice). They know that trait and
//! nothing of the engine behind it.

pub mod nbd;
