//! The fixed newstyle handshake, as a client.

use super::wire::*;
use super::{ReadHalf, WriteHalf};
use crate::{Error, Result};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

/// Longest option reply that is believed; a longer one is a broken server.
const OPTION_REPLY_BYTES_MAX: u32 = 64 << 10;

/// What the server said about the export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Size in bytes.
    pub bytes: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Smallest request, bytes; 1 when the server did not say.
    pub block_bytes_min: u32,
    /// Whether replies are structured.
    pub structured: bool,
}

/// What the handshake saw of the server going away.
pub(super) fn lost(error: io::Error) -> Error {
    Error::Io { what: "NBD handshake".to_owned(), source: error }
}

/// Negotiates structured replies (when offered) and enters transmission.
pub(super) async fn shake(
    read: &mut BufReader<ReadHalf>,
    write: &mut WriteHalf,
    name: &str,
) -> Result<Export> {
    let magic = read.read_u64().await.map_err(lost)?;
    let option_magic = read.read_u64().await.map_err(lost)?;
    let flags = read.read_u16().await.map_err(lost)?;
    if magic != MAGIC || option_magic != OPTION_MAGIC || flags & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(Error::Protocol(format!(
            "not a fixed newstyle server: {magic:#x} {option_magic:#x} flags {flags:#x}"
        )));
    }
    let answer = u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
    write.write_all(&answer.to_be_bytes()).await.map_err(lost)?;

    send_option(write, OPT_STRUCTURED_REPLY, &[]).await?;
    let structured = match read_reply(read, OPT_STRUCTURED_REPLY).await? {
        (REP_ACK, _) => true,
        (kind, _) if kind & REP_ERROR_BIT != 0 => false,
        (kind, _) => return Err(Error::Protocol(format!("STRUCTURED_REPLY: reply {kind:#x}"))),
    };

    let mut body = Vec::new();
    body.extend(u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend(name.as_bytes());
    body.extend(1u16.to_be_bytes());
    body.extend(INFO_BLOCK_SIZE.to_be_bytes());
    send_option(write, OPT_GO, &body).await?;
    let mut export = Export { structured, block_bytes_min: 1, ..Export::default() };
    let mut described = false;
    loop {
        let (kind, data) = read_reply(read, OPT_GO).await?;
        match kind {
            REP_ACK if described => return Ok(export),
            REP_INFO => match info(&data)? {
                Info::Export { bytes, flags } => {
                    (export.bytes, export.flags) = (bytes, flags);
                    described = true;
                }
                Info::BlockMin(bytes) => export.block_bytes_min = bytes,
                Info::Other => {}
            },
            kind if kind & REP_ERROR_BIT != 0 => {
                return Err(Error::Refused {
                    errno: kind & !REP_ERROR_BIT,
                    message: format!("GO {name:?}: {}", String::from_utf8_lossy(&data)),
                });
            }
            kind => return Err(Error::Protocol(format!("GO: reply {kind:#x}"))),
        }
    }
}

enum Info {
    Export { bytes: u64, flags: u16 },
    BlockMin(u32),
    Other,
}

fn info(data: &[u8]) -> Result<Info> {
    let short = || Error::Protocol(format!("information reply of {} bytes", data.len()));
    let (kind, rest) = data.split_first_chunk::<2>().ok_or_else(short)?;
    match u16::from_be_bytes(*kind) {
        INFO_EXPORT => {
            let (bytes, flags) = rest.split_first_chunk::<8>().ok_or_else(short)?;
            let flags = flags.first_chunk::<2>().ok_or_else(short)?;
            Ok(Info::Export {
                bytes: u64::from_be_bytes(*bytes),
                flags: u16::from_be_bytes(*flags),
            })
        }
        INFO_BLOCK_SIZE => {
            let min = rest.first_chunk::<4>().ok_or_else(short)?;
            Ok(Info::BlockMin(u32::from_be_bytes(*min)))
        }
        _ => Ok(Info::Other),
    }
}

async fn send_option(write: &mut WriteHalf, option: u32, body: &[u8]) -> Result<()> {
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(OPTION_MAGIC.to_be_bytes());
    message.extend(option.to_be_bytes());
    message.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend(body);
    write.write_all(&message).await.map_err(lost)
}

async fn read_reply(read: &mut BufReader<ReadHalf>, option: u32) -> Result<(u32, Vec<u8>)> {
    let magic = read.read_u64().await.map_err(lost)?;
    let echoed = read.read_u32().await.map_err(lost)?;
    let kind = read.read_u32().await.map_err(lost)?;
    let len = read.read_u32().await.map_err(lost)?;
    if magic != OPTION_REPLY_MAGIC || echoed != option || len > OPTION_REPLY_BYTES_MAX {
        return Err(Error::Protocol(format!(
            "option reply {magic:#x} to option {echoed}, {len} bytes; asked {option}"
        )));
    }
    let mut data = vec![0; len as usize];
    read.read_exact(&mut data).await.map_err(lost)?;
    Ok((kind, data))
}
