//! Messages between nodes through the shipping frames: put into bytes, and back, as on a
//! real connection. Some clusters do this with every message; the others pass them on
//! as values, which is quicker.

use super::packet::Packet;
use crate::invariants::{Invariant::I9NoSilentCorruption, Violation};
use holdfast_io::BufPool;
use holdfast_wire::{Decoder, Frame, Kinds, SendQueue};

/// Bytes that arrive together at most: frames come in pieces.
const PIECE_BYTES: usize = 3000;

/// An encoder, and a decoder for each kind of connection.
pub(super) struct Codec {
    queue: SendQueue,
    /// The bytes of one message.
    sent: Vec<u8>,
    to_replica: Decoder,
    from_replica: Decoder,
    question: Decoder,
    answer: Decoder,
}

impl Codec {
    pub(super) fn new(pool: &BufPool) -> Self {
        let decoder = |kinds| Decoder::new(pool.clone(), kinds);
        Self {
            queue: SendQueue::default(),
            sent: Vec::new(),
            to_replica: decoder(Kinds::TO_REPLICA),
            from_replica: decoder(Kinds::FROM_REPLICA),
            question: decoder(Kinds::QUESTION),
            answer: decoder(Kinds::ANSWER),
        }
    }

    /// What arrives of `packet`.
    pub(super) fn pass(&mut self, packet: Packet) -> Result<Packet, Violation> {
        let (frame, decoder) = match packet {
            Packet::ToReplica(message) => (Frame::ToReplica(message), &mut self.to_replica),
            Packet::FromReplica(message) => (Frame::FromReplica(message), &mut self.from_replica),
            Packet::Question(message) => (Frame::Question(message), &mut self.question),
            Packet::Answer(message) => (Frame::Answer(message), &mut self.answer),
            other => return Ok(other),
        };
        self.queue.push(&frame).map_err(|error| lost(&frame, &error))?;
        self.sent.clear();
        while !self.queue.is_empty() {
            let (pieces, bytes) = self.queue.gather();
            pieces.iter().for_each(|piece| self.sent.extend_from_slice(piece));
            drop(pieces);
            self.queue.advance(bytes);
        }
        let mut sent = &self.sent[..];
        loop {
            match decoder.frame().map_err(|error| lost(&frame, &error))? {
                Some(frame) => return Ok(packet_of(frame)),
                None if sent.is_empty() => return Err(lost(&frame, &"it never ends")),
                None => {}
            }
            let mut received = 0;
            for piece in &mut decoder.room() {
                let take = piece.len().min(sent.len()).min(PIECE_BYTES - received);
                piece[..take].copy_from_slice(&sent[..take]);
                sent = &sent[take..];
                received += take;
                if take < piece.len() {
                    break;
                }
            }
            decoder.received(received);
        }
    }
}

fn packet_of(frame: Frame) -> Packet {
    match frame {
        Frame::ToReplica(message) => Packet::ToReplica(message),
        Frame::FromReplica(message) => Packet::FromReplica(message),
        Frame::Question(message) => Packet::Question(message),
        Frame::Answer(message) => Packet::Answer(message),
        Frame::Hello(message) => Packet::Hello(message),
        Frame::Welcome(message) => Packet::Welcome(message),
        Frame::Renew(message) => Packet::Renew(message),
        Frame::Grant(message) => Packet::Grant(message),
        Frame::Meta(_) => unreachable!("a decoder takes no other kinds than its own"),
    }
}

/// What one node sends, another must be able to take.
fn lost(frame: &Frame, error: &dyn std::fmt::Display) -> Violation {
    let what = format!("a {:?} does not arrive as it was sent: {error}", frame.kind());
    Violation { invariant: I9NoSilentCorruption, what }
}
