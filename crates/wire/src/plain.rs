//! Frames without payload, in one piece: for those who need no buffers of a shard.

use crate::{
    frame::{self, Frame, FrameError, Header, Kinds},
    message,
    payload::Payload,
};

/// Length of a header.
pub const HEADER_BYTES: usize = frame::HEADER_BYTES;

/// The bytes of a frame.
///
/// # Errors
/// The message is larger than a frame of its kind may be, or has payload.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    encode_into(frame, &mut bytes)?;
    Ok(bytes)
}

/// Puts the bytes of a frame in the place of what is in `bytes`.
///
/// # Errors
/// As [`encode`].
pub fn encode_into(frame: &Frame, bytes: &mut Vec<u8>) -> Result<(), FrameError> {
    bytes.clear();
    bytes.extend([0; HEADER_BYTES]);
    let mut payload_bytes = 0;
    message::put(frame, bytes, |piece| payload_bytes += piece.len());
    let kind = frame.kind();
    let body = &bytes[HEADER_BYTES..];
    if payload_bytes > 0 {
        let body_bytes = body.len() as u64;
        return Err(FrameError::TooLarge { kind, body_bytes, payload_bytes: payload_bytes as u64 });
    }
    let header = Header::make(kind, body, 0)?;
    bytes[..HEADER_BYTES].copy_from_slice(&header);
    Ok(())
}

/// How many bytes of body follow a header.
///
/// # Errors
/// It is no header of a frame of `kinds`, or of one with payload.
pub fn body_bytes(header: &[u8; HEADER_BYTES], kinds: Kinds) -> Result<usize, FrameError> {
    let header = Header::parse(header, kinds)?;
    if header.payload_bytes > 0 {
        return Err(FrameError::TooLarge {
            kind: header.kind,
            body_bytes: header.body_bytes as u64,
            payload_bytes: header.payload_bytes as u64,
        });
    }
    Ok(header.body_bytes)
}

/// The frame with this header, for which [`body_bytes`] was asked, and this body.
///
/// # Errors
/// They do not match, or make no message.
pub fn decode(header: &[u8; HEADER_BYTES], body: &[u8], kinds: Kinds) -> Result<Frame, FrameError> {
    let parsed = Header::parse(header, kinds)?;
    parsed.verify(header, body)?;
    let kind = parsed.kind;
    let malformed = |why| FrameError::Malformed { kind, why };
    let mut payload = Payload::default();
    let frame = message::take(kind, body, &mut payload, Vec::new()).map_err(malformed)?;
    message::check(&frame).map_err(malformed)?;
    if payload.bytes() > 0 {
        return Err(malformed("its payload is missing".to_owned()));
    }
    Ok(frame)
}
