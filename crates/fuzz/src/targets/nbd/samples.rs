//! Sessions to begin with: every handshake, every command.

use super::{RAW, RAW_REQUESTS};

/// Offsets and lengths as they are.
const PLAIN: u8 = 0xff;

/// Requests as the input describes them: each command, right and wrong.
fn requests() -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writes of a block, of half a block, across blocks; reads of them and of holes.
    for (place, sectors, fill) in [(0, 8, 1), (12, 4, 2), (17, 40, 3), (128, 128, 4)] {
        bytes.extend([1, 1, place, sectors, fill]);
        bytes.extend([0, 0, place, sectors]);
    }
    bytes.extend([0, 0, 0, 128, 0, 4, 100, 60]);
    bytes.extend([3, 0, 0, 0]);
    // Trim, zeroes kept and not, fast ones, both; status of all and of the first.
    bytes.extend([4, 0, 20, 26, 6, 0, 130, 5, 6, 2, 140, 16, 6, 16, 160, 8, 6, 18, 160, 8]);
    bytes.extend([7, 0, 0, 255, 7, 8, 0, 128, 5, 0, 0, 8]);
    bytes.extend([0, 0, 0, 128, 0, 0, 128, 128]);
    // Beyond the end, too long, unknown command, unknown flag, empty, misaligned.
    bytes.extend([0, 0, 250, 20, 1, 0, 250, 20, 9, 0, 0, 0, 255, 8, 0, 1, 1, 0, 64, 1, 1]);
    bytes.extend([0, 0, 5, 0, 1, 0, 5, 0, 6, 0, 250, 20, 4, 0, 250, 20]);
    bytes.extend([0, 0, PLAIN]);
    bytes.extend([513u64.to_le_bytes(), 7u64.to_le_bytes()].as_flattened());
    bytes.extend([4, 0, PLAIN]);
    bytes.extend([u64::MAX.to_le_bytes(), 512u64.to_le_bytes()].as_flattened());
    bytes.extend([3, 0, PLAIN, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn with(mode: u8, traits: u8, piece: u8, greeting: &[u8], rest: &[u8]) -> Vec<u8> {
    [&[mode, traits, piece], greeting, rest].concat()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let (simple, structured, extended) =
        ([0, 0, 0, 0], [0, 1, 3, 0, 0, 0, 0, 0], [0, 2, 3, 0, 0, 0, 0, 0]);
    let greetings: [&[u8]; 3] = [&simple, &structured, &extended];
    let requests = requests();
    let mut seeds = Vec::new();
    for greeting in greetings {
        for (traits, piece) in [(0, 0), (0, 200), (0x31, 40), (2, 3), (0xf5, 90), (8, 30)] {
            seeds.push(with(0, traits, piece, greeting, &requests));
        }
        // Left in order; a header cut off; a payload too large.
        seeds.push(with(0, 0, 9, greeting, &[1, 0, 0, 8, 5, 2, 0, 0, 0, 0, 0, 0, 8]));
        let large = [[0; 8], (33u64 << 20).to_le_bytes()];
        seeds.push(with(0, 0, 9, greeting, &[&[1, 0, PLAIN], large.as_flattened()].concat()));
        seeds.push(with(RAW_REQUESTS, 0, 9, greeting, b"\x25\x60\x95\x13\0\0\0\0cookie.."));
        seeds.push(with(RAW_REQUESTS, 0, 9, greeting, &[0xee; 40]));
        // More than may be under way, of a client that does not listen and a device that waits.
        seeds.push(with(0, 0xf4, 250, greeting, &[0, 0, 0, 8].repeat(600)));
        seeds.push(with(0, 0xf1, 250, greeting, &[1, 0, 0, 1, 9].repeat(400)));
    }
    // Handshakes that ask for everything, ask wrongly, end otherwise, do not end.
    let all = [1, 5, 1, 4, 0, 3, 4, 1, 0, 6, 0, 6, 3, 3, 2, 1, 2, 1, 9, 3, 0, 9, 8, 2, 1, 2];
    let more = [9, 5, 2, 7, 7, 9, 77, 1, 1, 8, 20, 3, 8, 255, 10, 9, 10, 3, 0, 0, 0, 0];
    for end in [&[0, 1][..], &[0, 2], &[0, 3], &[1, 0], &[1, 1], &[1, 2], &[1, 3], &[2]] {
        seeds.push(with(0, 0, 50, &[&[0][..], &all, &more, &[0], end].concat(), &requests));
        seeds.push(with(0, 0, 50, &[&[1, 0][..], end].concat(), &requests));
    }
    seeds.push(with(0, 0, 50, &[0, 7], &[]));
    seeds.push(with(0, 0, 50, &[0, 3, 0, 0, 4, 0, 0], &[]));
    seeds.push(with(0, 0, 50, &[2, 4, 0, 0, 0], &[]));
    seeds.push(with(0, 0, 50, &[&[0][..], &[5; 46]].concat(), &[]));
    seeds.push(with(0, 0, 50, &[0, 8, 255, 1, 0], &[]));
    seeds.push(with(RAW, 0, 50, &[], b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x03one"));
    seeds.push(with(RAW, 0, 50, &[], b"\0\0\0\x03IWANTOPT\0\0\0\x01\0\0\0\x03one"));
    seeds
}
