//! What a broken or hostile peer may send: never accepted, never a panic, never
//! memory for what did not come.

use super::*;

/// Small frames of every kind; flipping each bit of the large ones takes too long.
fn small() -> impl Iterator<Item = (Frame, Vec<u8>)> {
    samples()
        .into_iter()
        .map(|frame| (bytes_of(&frame), frame))
        .filter_map(|(bytes, frame)| (bytes.len() < 30_000).then_some((frame, bytes)))
}

#[test]
fn a_truncated_frame_is_never_a_frame() {
    for (frame, bytes) in small() {
        let cuts = (0..bytes.len()).filter(|cut| *cut < 600 || cut % 97 == 0);
        for cut in cuts {
            let (frames, end) = decode(ALL, &bytes[..cut]);
            assert!(frames.is_empty(), "{cut} bytes of {frame:?}");
            assert_eq!(end, Ok(()), "{cut} bytes of {frame:?}");
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (frame, bytes) in small() {
        let mut bytes = bytes;
        let step = if bytes.len() > 1000 { 13 } else { 1 };
        for bit in (0..bytes.len() * 8).filter(|bit| *bit < 2000 || bit % step == 0) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A frame that now says it is longer waits for more; none comes through.
            let (frames, _) = decode(ALL, &bytes);
            assert!(frames.is_empty(), "bit {bit} of {frame:?}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_flipped_bit_of_the_payload_is_named() {
    let frame = append(vec![write(7, 1, 1), write(8, 1, 3)]);
    let mut bytes = bytes_of(&frame);
    let payload = bytes.len() - 4 * BLOCK_BYTES;
    bytes[payload + 2 * BLOCK_BYTES + 5] ^= 1;
    let (frames, end) = decode(ALL, &bytes);
    assert!(frames.is_empty());
    assert_eq!(end, Err(FrameError::Payload { kind: Kind::Append, block: 2 }));
}

/// A header that is right in itself: the checksum is no secret.
fn sealed(kind: u8, body: &[u8], body_bytes: u32, payload_bytes: u32) -> Vec<u8> {
    let mut bytes = Vec::from(*b"HF");
    bytes.extend([crate::FRAME_VERSION, kind]);
    bytes.extend(body_bytes.to_le_bytes());
    bytes.extend(payload_bytes.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes);
    crc.update(body);
    bytes.extend(crc.finalize().to_le_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn absurd_lengths_are_refused_before_anything_is_allocated() {
    for kind in Kind::ALL {
        for (body, payload) in
            [(u32::MAX, 0), (0, !4095), (kind.body_max() + 1, 0), (0, kind.payload_max() + 4096)]
        {
            let pool = pool();
            let mut decoder = Decoder::new(pool.clone(), ALL);
            let bytes = sealed(*kind as u8, &[], body, payload);
            let (frames, end) = feed(&mut decoder, &bytes, || usize::MAX);
            assert!(frames.is_empty());
            assert!(matches!(end, Err(FrameError::TooLarge { .. })), "{kind:?} {end:?}");
            assert_eq!(pool.stats().arena_bytes_used, 0);
        }
        let odd = sealed(*kind as u8, &[], 0, 512);
        assert!(decode(ALL, &odd).1.is_err());
    }
}

/// A header may announce the longest body there is; memory comes with the bytes.
#[test]
fn a_header_alone_gets_no_memory() {
    let bytes = sealed(Kind::Meta as u8, &[], Kind::Meta.body_max(), 0);
    let mut decoder = Decoder::new(pool(), ALL);
    assert_eq!(feed(&mut decoder, &bytes, || usize::MAX).1, Ok(()));
    let room: usize = decoder.room().iter().map(|place| place.len()).sum();
    assert!(room <= crate::RECEIVE_BYTES, "{room}");
}

#[test]
fn other_versions_and_other_protocols_are_told_apart() {
    let bytes = bytes_of(&Frame::Meta(vec![1]));
    let mut newer = bytes.clone();
    newer[2] = 9;
    assert_eq!(decode(ALL, &newer).1, Err(FrameError::Version(9)));
    assert_eq!(decode(ALL, b"GET / HTTP/1.1\r\n").1, Err(FrameError::Magic));
    assert_eq!(decode(Kinds::HELLO, &bytes).1, Err(FrameError::Kind(3)));
    let unknown = sealed(60, &[], 0, 0);
    assert_eq!(decode(ALL, &unknown).1, Err(FrameError::Kind(60)));
    let beyond = sealed(200, &[], 0, 0);
    assert_eq!(decode(ALL, &beyond).1, Err(FrameError::Kind(200)));
}

/// Bodies that are intact and make no sense: each must be refused, none may panic.
#[test]
fn nonsense_under_a_right_checksum_is_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let samples: Vec<(Kind, Vec<u8>, u32)> = samples()
        .iter()
        .map(|frame| {
            let bytes = bytes_of(frame);
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let body = bytes[16..16 + word(4) as usize].to_vec();
            (frame.kind(), body, word(8))
        })
        .collect();
    let mut refused = 0;
    for _ in 0..60_000 {
        let (kind, body, payload) = &samples[rng.random_range(0..samples.len())];
        let mut body = body.clone();
        match rng.random_range(0..4) {
            0 => body.truncate(rng.random_range(0..=body.len())),
            1 => body.extend((0..rng.random_range(1..9)).map(|_| rng.random::<u8>())),
            _ => {
                for _ in 0..rng.random_range(1..4) {
                    if !body.is_empty() {
                        let at = rng.random_range(0..body.len());
                        body[at] = [0, 1, 0x7f, 0x80, 0xff, rng.random()][rng.random_range(0..6)];
                    }
                }
            }
        }
        let mut bytes = sealed(*kind as u8, &body, body.len() as u32, *payload);
        bytes.resize(bytes.len() + *payload as usize, 0);
        let (frames, end) = decode(ALL, &bytes);
        refused += usize::from(end.is_err());
        // What comes through says the same again, so that nothing was overlooked.
        for frame in frames {
            let again = bytes_of(&frame);
            let (back, end) = decode(ALL, &again);
            assert_eq!((back.len(), end), (1, Ok(())), "{frame:?}");
        }
    }
    assert!(refused > 30_000, "{refused}");
}

#[test]
fn noise_is_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..5000 {
        let mut noise = vec![0; rng.random_range(16..200)];
        rng.fill(&mut noise[..]);
        if rng.random() {
            noise[..3].copy_from_slice(&[b'H', b'F', crate::FRAME_VERSION]);
            noise[3] = Kind::ALL[rng.random_range(0..Kind::ALL.len())] as u8;
            noise[5..8].fill(0);
            noise[8..12].fill(0);
        }
        assert!(decode(ALL, &noise).0.is_empty());
    }
}

/// Numbers that would overflow what calculates with them.
#[test]
fn numbers_that_no_history_reaches_are_refused() {
    let far = Lsn::new(u64::MAX);
    let commit = Frame::ToReplica(ToReplica::Commit(far));
    assert!(matches!(decode(ALL, &bytes_of(&commit)).1, Err(FrameError::Malformed { .. })));
    let question = Frame::Question(Question::Records { from: far });
    assert!(decode(ALL, &bytes_of(&question)).1.is_err());
    let range = BlockRange::new(BlockNo::new(u64::MAX), 1);
    let read = ToReplica::Reserve { tag: StreamTag(1), range };
    assert!(decode(ALL, &bytes_of(&Frame::ToReplica(read))).1.is_err());
    let epochs = vec![promise().epochs[1], promise().epochs[0]];
    let bad = Promise { epochs, ..promise() };
    let promised = Frame::FromReplica(FromReplica::Promised(Ok(bad)));
    assert!(decode(ALL, &bytes_of(&promised)).1.is_err());
}

#[test]
fn a_message_that_is_too_large_is_not_queued() {
    let mut queue = SendQueue::default();
    let frame = Frame::Welcome(Welcome::Refused { reason: "x".repeat(5000) });
    assert!(matches!(queue.push(&frame), Err(FrameError::TooLarge { .. })));
    assert!(queue.is_empty());
    let zeroes = || (7..90).map(|lsn| write(lsn, 0, 64)).collect();
    assert!(queue.push(&append(zeroes())).is_err());
    assert_eq!(queue.bytes(), 0);
    queue.push(&append(vec![write(7, 1, 1)])).unwrap();
    assert_eq!(decode(ALL, &drain(&mut queue, 100)).0.len(), 1);
}
