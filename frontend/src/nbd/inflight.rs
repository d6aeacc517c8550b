//! What a connection has under way, and how much of it there may be.

/// Requests of one connection that have been read and not yet been answered in
/// full. Enough for any client's queue depth; one more is left in the socket.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 256;
/// Bytes of data that those may hold. A single request may be as large as that,
/// and is let in when nothing else is under way.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
