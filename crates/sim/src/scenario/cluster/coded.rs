//! Messages between nodes through the shipping frames: put into bytes, and back, as on a
//! real connection. Some clusters do this with every message; the others pass them on
//! as values, which is quicker. Now and then a bit flips on the way: that must be found,
//! and ends the connection.

use super::packet::Packet;
use crate::{
    invariants::{Invariant::I9NoSilentCorruption, Violation},
    rng::SimRng,
};
use holdfast_io::BufPool;
use holdfast_wire::{Decoder, Frame, FrameError, Kinds, SendQueue};

/// Bytes that arrive together at most: frames come in pieces.
const PIECE_BYTES: usize = 3000;
/// Messages of a million of which a bit flips on the way, past the checksums of the
/// network: some for each cluster.
const FLIPS: u32 = 300;

/// An encoder, and a decoder for each kind of connection.
pub(super) struct Codec {
    rng: SimRng,
    pool: BufPool,
    queue: SendQueue,
    /// The bytes of one message.
    sent: Vec<u8>,
    to_replica: Decoder,
    from_replica: Decoder,
    question: Decoder,
    answer: Decoder,
}

impl Codec {
    pub(super) fn new(pool: &BufPool, rng: SimRng) -> Self {
        let decoder = |kinds| Decoder::new(pool.clone(), kinds);
        Self {
            rng,
            pool: pool.clone(),
            queue: SendQueue::default(),
            sent: Vec::new(),
            to_replica: decoder(Kinds::TO_REPLICA),
            from_replica: decoder(Kinds::FROM_REPLICA),
            question: decoder(Kinds::QUESTION),
            answer: decoder(Kinds::ANSWER),
        }
    }

    /// What arrives of `packet`; `None`: what does is damaged, and was found to be.
    pub(super) fn pass(&mut self, packet: Packet) -> Result<Option<Packet>, Violation> {
        let (frame, kinds, decoder) = match packet {
            Packet::ToReplica(message) => {
                (Frame::ToReplica(message), Kinds::TO_REPLICA, &mut self.to_replica)
            }
            Packet::FromReplica(message) => {
                (Frame::FromReplica(message), Kinds::FROM_REPLICA, &mut self.from_replica)
            }
            Packet::Question(message) => {
                (Frame::Question(message), Kinds::QUESTION, &mut self.question)
            }
            Packet::Answer(message) => (Frame::Answer(message), Kinds::ANSWER, &mut self.answer),
            other => return Ok(Some(other)),
        };
        self.queue.push(&frame).map_err(|error| lost(&frame, &error))?;
        self.sent.clear();
        while !self.queue.is_empty() {
            let (pieces, bytes) = self.queue.gather();
            pieces.iter().for_each(|piece| self.sent.extend_from_slice(piece));
            drop(pieces);
            self.queue.advance(bytes);
        }
        if self.rng.per_million(FLIPS) {
            let bit = self.rng.within(0..8 * self.sent.len() as u64) as usize;
            self.sent[bit / 8] ^= 1 << (bit % 8);
            // Whoever finds that closes the connection.
            return match decode(&mut Decoder::new(self.pool.clone(), kinds), &self.sent) {
                Ok(Some(taken)) => Err(passed(&taken)),
                Ok(None) | Err(_) => Ok(None),
            };
        }
        match decode(decoder, &self.sent).map_err(|error| lost(&frame, &error))? {
            Some(frame) => Ok(Some(packet_of(frame))),
            None => Err(lost(&frame, &"it never ends")),
        }
    }
}

/// Takes a frame in pieces; `None`: it wants more than there is.
fn decode(decoder: &mut Decoder, mut sent: &[u8]) -> Result<Option<Frame>, FrameError> {
    loop {
        match decoder.frame()? {
            Some(frame) => return Ok(Some(frame)),
            None if sent.is_empty() => return Ok(None),
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

/// Damage on the way must be noticed.
fn passed(frame: &Frame) -> Violation {
    let what = format!("a {:?} of which a bit has flipped on the way is taken", frame.kind());
    Violation { invariant: I9NoSilentCorruption, what }
}
