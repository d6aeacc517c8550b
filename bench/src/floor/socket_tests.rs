//! Messages survive every way to cut their stream into reads and writes.

use super::*;
use crate::floor::outbox::Outbox;

const HEADER: usize = 8;

/// Takes whole messages out: the header is the payload's length.
fn take(inbox: &mut Inbox, filling: &mut bool, out: &mut Vec<Vec<u8>>) {
    loop {
        if *filling {
            let Some(payload) = inbox.payload() else { return };
            *filling = false;
            out.push(payload.iter().flat_map(|piece| piece.iter().copied()).collect());
        }
        let Some(header) = inbox.header(HEADER) else { return };
        let len = u64::from_le_bytes(header.try_into().unwrap());
        inbox.consume(HEADER);
        inbox.begin(len as usize);
        *filling = true;
    }
}

#[test]
fn any_cuts_of_the_stream_bring_the_same_messages() {
    let pool = BufPool::new(8 << 20);
    let sizes = [4096, 8192, 300 << 10, 4096, 1 << 20, 4096, 64 << 10];
    let messages: Vec<Vec<u8>> = (0u8..)
        .zip(sizes)
        .map(|(seed, len)| (0..len).map(|at| (at % 251) as u8 ^ seed).collect())
        .collect();
    for step in [1000, 4096, 4104, 65_537, 1 << 19, 4 << 20] {
        let mut outbox = Outbox::default();
        for message in &messages {
            outbox.push(&(message.len() as u64).to_le_bytes());
            let mut piece = pool.alloc(message.len());
            piece.copy_from_slice(message);
            outbox.push_shared(piece.freeze());
        }
        let mut inbox = Inbox::new(pool.clone(), &[]);
        let (mut filling, mut got) = (false, Vec::new());
        while outbox.bytes() > 0 {
            let (pieces, total) = outbox.gather();
            let stream: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            assert_eq!(stream.len(), total);
            let mut moved = 0;
            let mut rest = &stream[..step.min(total)];
            for place in &mut inbox.room() {
                let len = place.len().min(rest.len());
                place[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
                moved += len;
            }
            drop(pieces);
            outbox.sent(moved);
            inbox.received(moved);
            take(&mut inbox, &mut filling, &mut got);
        }
        assert!(got == messages, "cut at {step}: {} messages", got.len());
    }
}
