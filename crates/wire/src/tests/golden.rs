//! Frames as they stand in `docs/format/wire.md`: a change here is a new version.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every sample's frame, as a checksum of its bytes; a kind that is added gets a line of
/// its own, the others stay.
#[test]
fn no_frame_changes_by_accident() {
    let sums: Vec<String> = samples()
        .iter()
        .map(|frame| format!("{:?} {:08x}", frame.kind(), crc32fast::hash(&bytes_of(frame))))
        .collect();
    assert_eq!(sums.join("\n"), GOLDEN.trim());
}

#[test]
fn small_frames_byte_by_byte() {
    let hex_of = |frame: &Frame| hex(&bytes_of(frame));
    let commit = Frame::ToReplica(ToReplica::Commit(Lsn::new(99)));
    let fence = &samples()[10];
    assert_eq!(fence.kind(), Kind::Fence);
    let append = hex_of(&samples()[8]);
    let append = &append[..append.len() - 2 * BLOCK_BYTES];
    assert_eq!([&hex_of(&commit), &hex_of(fence), append], [COMMIT, FENCE, APPEND]);
}

const COMMIT: &str = "4846011308000000000000001d46ccf16300000000000000";
const FENCE: &str = "\
    48460110350000000000000091882d3e100000000000000000000000000000000110000000000000\
    0000000000000000000203100000000000000000000000000000000705";
const APPEND: &str = "\
    484601126b000000001000003e3289eb000000000000000000000000000000010000000000000000\
    00000000000000020300000000000000040000000000000005000000000000000200000000000000\
    06000000000000000500000000000000010000000103000000000000000000000000000000010023\
    97844d";
const GOLDEN: &str = "
Hello ce7788b8
Welcome 874676c3
Welcome ed3850ac
Meta 1826bf58
Meta 2144df1c
Renew e09ba4cb
Grant 0bb6eff0
Append 70d6b269
Append 9db238f0
Append 2aa72329
Fence a6587d4b
Truncate bc52e852
Commit 1439e40c
Read 843195b6
Status ab273fee
Reserve 2c2e4626
Unreserve d1131c06
CatchUp 21a2c4ba
Release 4233cb4b
Promised 6c54d28f
Promised 0a97d84e
Truncated cf9e7e5b
Truncated be7958ea
Ack 2ae37031
Refused e5ecd11d
ReadDone 7e088dc7
ReadDone 71b7e3bb
ReadDone 34209e91
StatusDone 5fe68ff9
StatusDone 01b7936a
Reserved 458f7652
Credits a85b5361
CaughtUp 56ca81e1
CaughtUp 0260b395
Question 866016af
Question c55f611f
Question 3a02a7e1
Opened f6335c53
Slots 1560ba47
Slots 8b4d79d8
Records be61a95f
Records f1a3331b
Failed 6890a93e
";
