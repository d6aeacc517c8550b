//! Numbers of the NBD protocol, as its specification names them.

/// First greeting, `NBDMAGIC`.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second greeting and option requests, `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Option replies.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Requests in transmission.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Simple replies.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Chunks of structured replies.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flag: fixed newstyle.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag: no zero padding after EXPORT_NAME.
pub const FLAG_NO_ZEROES: u16 = 2;

/// Option: abort.
pub const OPT_ABORT: u32 = 2;
/// Option: go.
pub const OPT_GO: u32 = 7;
/// Option: structured replies.
pub const OPT_STRUCTURED_REPLY: u32 = 8;

/// Option reply: acknowledged.
pub const REP_ACK: u32 = 1;
/// Option reply: information about the export.
pub const REP_INFO: u32 = 3;
/// Bit that marks an option reply as an error.
pub const REP_ERROR_BIT: u32 = 1 << 31;
/// Option reply: unsupported.
pub const REP_ERR_UNSUP: u32 = REP_ERROR_BIT | 1;

/// Information: size and flags.
pub const INFO_EXPORT: u16 = 0;
/// Information: block sizes.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flag: flags are valid.
pub const SENDS_FLAGS: u16 = 1;
/// Transmission flag: FLUSH is understood.
pub const SENDS_FLUSH: u16 = 1 << 2;
/// Transmission flag: FUA is understood.
pub const SENDS_FUA: u16 = 1 << 3;
/// Transmission flag: TRIM is understood.
pub const SENDS_TRIM: u16 = 1 << 5;
/// Transmission flag: WRITE_ZEROES is understood.
pub const SENDS_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: connections see each other's writes.
pub const CAN_MULTI_CONN: u16 = 1 << 8;

/// Command: read.
pub const CMD_READ: u16 = 0;
/// Command: write.
pub const CMD_WRITE: u16 = 1;
/// Command: disconnect.
pub const CMD_DISC: u16 = 2;
/// Command: flush.
pub const CMD_FLUSH: u16 = 3;
/// Command: trim.
pub const CMD_TRIM: u16 = 4;
/// Command: write zeroes.
pub const CMD_WRITE_ZEROES: u16 = 6;

/// Command flag: force unit access.
pub const CMD_FLAG_FUA: u16 = 1;
/// Command flag: do not punch a hole.
pub const CMD_FLAG_NO_HOLE: u16 = 2;

/// Chunk flag: last of its reply.
pub const REPLY_FLAG_DONE: u16 = 1;
/// Chunk: nothing.
pub const REPLY_NONE: u16 = 0;
/// Chunk: data at an offset.
pub const REPLY_OFFSET_DATA: u16 = 1;
/// Chunk: a hole.
pub const REPLY_OFFSET_HOLE: u16 = 2;
/// Bit that marks a chunk as an error.
pub const REPLY_ERROR_BIT: u16 = 1 << 15;
/// Chunk: an error.
pub const REPLY_ERROR: u16 = REPLY_ERROR_BIT | 1;

/// Error number: no space.
pub const ENOSPC: u32 = 28;
/// Error number: invalid.
pub const EINVAL: u32 = 22;
