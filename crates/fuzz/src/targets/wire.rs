//! Frames between nodes: greetings, leases, streams, catch-up.
//!
//! Checked: the streaming decoder and the one for frames in one piece agree; what was decoded can
//! be encoded, and decodes again to the same bytes; a refusal stays one however the bytes are cut.

mod samples;

use crate::{
    Input, Labels, Target,
    forge::frames::{announced_fills, header},
};
use holdfast_io::BufPool;
use holdfast_types::BLOCK_BYTES;
use holdfast_wire::{Decoder, Frame, FrameError, Kind, Kinds, SendQueue, plain};

pub(super) const TARGET: Target = Target {
    name: "wire",
    about: "frames between nodes: both decoders, and the encoder behind them",
    run,
    // The payload that a body of 64 KiB can announce (32 MiB and two blocks, an answer to a read),
    // or what a serde body may become (16 MiB), and the input several times over.
    heap_bytes_max: 34 << 20,
    seeds: samples::seeds,
};

/// What the ends of connections take.
const SIDES: [Kinds; 10] = [
    Kinds::of(Kind::ALL),
    Kinds::HELLO,
    Kinds::WELCOME,
    Kinds::META,
    Kinds::RENEW,
    Kinds::GRANT,
    Kinds::TO_REPLICA,
    Kinds::FROM_REPLICA,
    Kinds::QUESTION,
    Kinds::ANSWER,
];
/// Blocks of payload made for a frame at most.
const FILLS_MAX: usize = 64;
/// Bytes that a stream is put together from at most.
const STREAM_BYTES_MAX: usize = 1 << 20;

/// The input's bytes are the connection's.
const RAW: u8 = 1;
/// A block of the payload is changed.
const DAMAGE_PAYLOAD: u8 = 1;
/// The payload is one block short.
const SHORT_PAYLOAD: u8 = 2;
/// The header is changed after it was sealed.
const DAMAGE_HEADER: u8 = 3;

fn run(input: &[u8], labels: &mut Labels) {
    let mut input = Input::new(input);
    let mode = input.u8();
    let kinds = input.pick(&SIDES);
    let chunk = 1 + usize::from(input.u8()) * 37;
    let stream = if mode == RAW { input.rest().to_vec() } else { frames(&mut input, labels) };
    let whole = decode(&stream, usize::MAX, kinds, labels);
    let cut = decode(&stream, chunk, kinds, &mut Labels::none());
    assert_eq!(whole, cut, "what came does not depend on how it was cut");
}

/// Frames whose checksums are right, but for the damage that the input asks for.
fn frames(input: &mut Input<'_>, labels: &mut Labels) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() && stream.len() < STREAM_BYTES_MAX {
        let kind = input.pick(Kind::ALL);
        let damage = input.u8();
        let len = usize::from(input.u16());
        let body = input.bytes(len);
        let fills = if kind.payload_max() > 0 { announced_fills(body, FILLS_MAX) } else { vec![] };
        let mut payload: Vec<u8> = fills.iter().flat_map(|fill| [*fill; BLOCK_BYTES]).collect();
        match damage {
            DAMAGE_PAYLOAD if !payload.is_empty() => payload[0] ^= 1,
            SHORT_PAYLOAD if !payload.is_empty() => {
                payload.truncate(payload.len() - BLOCK_BYTES);
            }
            _ => {}
        }
        let mut header = header(kind as u8, body, payload.len() as u32);
        if damage == DAMAGE_HEADER {
            header[input.below(header.len())] ^= input.u8();
        }
        plain_and_stream_agree(&header, body, kind, labels);
        stream.extend_from_slice(&header);
        stream.extend_from_slice(body);
        stream.extend_from_slice(&payload);
    }
    stream
}

/// A frame without payload is decoded by two ways in.
fn plain_and_stream_agree(
    header: &[u8; plain::HEADER_BYTES],
    body: &[u8],
    kind: Kind,
    labels: &mut Labels,
) {
    let kinds = Kinds::of(&[kind]);
    if plain::body_bytes(header, kinds) != Ok(body.len()) {
        return;
    }
    let plain = plain::decode(header, body, kinds);
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(body);
    let mut decoder = Decoder::new(BufPool::new(0), kinds);
    feed(&mut decoder, &mut &bytes[..], usize::MAX);
    // A body that is longer than the decoder's buffer comes in several pieces.
    if bytes.len() > holdfast_wire::RECEIVE_BYTES {
        return;
    }
    match (plain, decoder.frame()) {
        (Ok(plain), Ok(Some(streamed))) => {
            assert_eq!(encoded(&plain), encoded(&streamed), "two frames of the same bytes");
            let again = plain::encode(&plain);
            assert_eq!(again.as_ref().map(Vec::as_slice), Ok(&encoded(&plain)[..]));
            labels.see(format_args!("plain {kind:?}"));
        }
        // A payload that is announced and not there is said in two ways.
        (Err(FrameError::Malformed { .. }), Err(FrameError::Malformed { .. })) => {}
        (Err(plain), Err(streamed)) => assert_eq!(plain, streamed, "two causes"),
        // It announces a payload, for which one way waits and which the other never takes.
        (Err(FrameError::Malformed { .. }), Ok(None)) => {}
        (plain, streamed) => panic!("{kind:?}: {plain:?} and {streamed:?}"),
    }
}

/// All frames of a stream, encoded again, and why it ended, if not because it was over.
fn decode(
    mut stream: &[u8],
    chunk: usize,
    kinds: Kinds,
    labels: &mut Labels,
) -> (Vec<u8>, Option<FrameError>) {
    let mut decoder = Decoder::new(BufPool::new(0), kinds);
    let mut frames = Vec::new();
    loop {
        match decoder.frame() {
            Ok(Some(frame)) => {
                labels.see(format_args!("took {:?}", frame.kind()));
                let bytes = encoded(&frame);
                encodes_to_itself(&bytes, kinds);
                frames.extend_from_slice(&bytes);
            }
            Ok(None) if stream.is_empty() => {
                labels.see(format_args!("over"));
                return (frames, None);
            }
            Ok(None) => feed(&mut decoder, &mut stream, chunk),
            Err(error) => {
                see(&error, labels);
                return (frames, Some(error));
            }
        }
    }
}

fn feed(decoder: &mut Decoder, stream: &mut &[u8], chunk: usize) {
    let mut received = 0;
    for mut place in decoder.room() {
        let take = place.len().min(stream.len()).min(chunk - received);
        place[..take].copy_from_slice(&stream[..take]);
        *stream = &stream[take..];
        received += take;
    }
    decoder.received(received);
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut queue = SendQueue::default();
    if let Err(error) = queue.push(frame) {
        panic!("what was decoded cannot be encoded: {error}");
    }
    let mut bytes = Vec::with_capacity(queue.bytes());
    while !queue.is_empty() {
        let (pieces, total) = queue.gather();
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        drop(pieces);
        queue.advance(total);
    }
    bytes
}

/// Different bytes may make the same message, but a message makes the same bytes.
fn encodes_to_itself(bytes: &[u8], kinds: Kinds) {
    let mut decoder = Decoder::new(BufPool::new(0), kinds);
    let mut rest = bytes;
    loop {
        match decoder.frame() {
            Ok(Some(frame)) => {
                assert!(rest.is_empty(), "{} bytes left over", rest.len());
                assert!(encoded(&frame) == bytes, "it comes back as another: {frame:?}");
                return;
            }
            Ok(None) if !rest.is_empty() => feed(&mut decoder, &mut rest, usize::MAX),
            other => panic!("what was encoded does not decode: {other:?}"),
        }
    }
}

fn see(error: &FrameError, labels: &mut Labels) {
    match error {
        FrameError::Magic => labels.see(format_args!("refused: magic")),
        FrameError::Version(_) => labels.see(format_args!("refused: version")),
        FrameError::Kind(_) => labels.see(format_args!("refused: kind")),
        FrameError::TooLarge { .. } => labels.see(format_args!("refused: too large")),
        FrameError::Checksum(_) => labels.see(format_args!("refused: checksum")),
        FrameError::Payload { kind, .. } => {
            labels.see(format_args!("refused: payload of {kind:?}"));
        }
        FrameError::Malformed { kind, .. } => labels.see(format_args!("malformed {kind:?}")),
    }
}
