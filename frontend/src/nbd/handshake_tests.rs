use super::*;
use crate::nbd::proto::{OPTION_MAGIC, OPTION_REPLY_MAGIC, transmission_flag as tf};
use holdfast_block::Geometry;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Directory(Vec<Export>);

impl Exports for Directory {
    fn list(&self) -> Vec<Export> {
        self.0.clone()
    }
}

fn export(name: &str, read_only: bool) -> Export {
    Export {
        name: name.to_owned(),
        description: format!("volume {name}"),
        geometry: Geometry {
            size_bytes: 1 << 30,
            logical_block_bytes: 512,
            preferred_block_bytes: 4096,
            max_request_bytes: 32 << 20,
            read_only,
        },
    }
}

fn one() -> Directory {
    Directory(vec![export("demo", false)])
}

fn two() -> Directory {
    Directory(vec![export("demo", false), export("archive", true)])
}

fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn info_data(name: &str, wants: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((wants.len() as u16).to_be_bytes());
    wants.iter().for_each(|want| data.extend(want.to_be_bytes()));
    data
}

fn meta_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}

/// A reply to an option: option, type, data.
type OptionReply = (u32, u32, Vec<u8>);

fn replies(mut out: &[u8]) -> Vec<OptionReply> {
    let mut replies = Vec::new();
    while !out.is_empty() {
        let word = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().unwrap());
        assert_eq!(out[..8], OPTION_REPLY_MAGIC.to_be_bytes());
        let (option, kind, len) = (word(8), word(12), word(16) as usize);
        replies.push((option, kind, out[20..20 + len].to_vec()));
        out = &out[20 + len..];
    }
    replies
}

/// A client in the middle of its options.
struct Client {
    handshake: Handshake,
    exports: Directory,
}

impl Client {
    fn new(exports: Directory) -> Self {
        let mut handshake = Handshake::new(100);
        let (used, step) = handshake.advance(&[0, 0, 0, 3], &exports, &mut Vec::new());
        assert_eq!(used, 4);
        assert!(matches!(step, Step::Again));
        Self { handshake, exports }
    }

    fn send(&mut self, option: u32, data: &[u8]) -> (Vec<u8>, Step) {
        let bytes = option_bytes(option, data);
        let mut out = Vec::new();
        let (used, step) = self.handshake.advance(&bytes, &self.exports, &mut out);
        assert_eq!(used, bytes.len());
        (out, step)
    }

    /// The replies to an option that does not end the handshake.
    fn ask(&mut self, option: u32, data: &[u8]) -> Vec<OptionReply> {
        let (out, step) = self.send(option, data);
        assert!(matches!(step, Step::Again), "{step:?}");
        replies(&out)
    }

    /// As [`Self::ask`], of which only the types matter.
    fn kinds(&mut self, option: u32, data: &[u8]) -> Vec<u32> {
        self.ask(option, data).into_iter().map(|reply| reply.1).collect()
    }

    fn go(&mut self, name: &str) -> Chosen {
        match self.send(option::GO, &info_data(name, &[])).1 {
            Step::Chosen(chosen) => chosen,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_greeting_is_fixed_newstyle() {
    let mut out = Vec::new();
    Handshake::new(1).greet(&mut out);
    assert_eq!(&out[..16], b"NBDMAGICIHAVEOPT");
    assert_eq!(out[16..], [0, 3]);
}

#[test]
fn client_flags_that_were_not_offered_end_the_session() {
    for flags in [4u32, 0x8000_0000, 7] {
        let mut handshake = Handshake::new(1);
        let step = handshake.advance(&flags.to_be_bytes(), &one(), &mut Vec::new()).1;
        assert!(matches!(step, Step::End(HandshakeEnd::Violation(_))), "{flags}");
    }
    for flags in 0..4u32 {
        let mut handshake = Handshake::new(1);
        let step = handshake.advance(&flags.to_be_bytes(), &one(), &mut Vec::new()).1;
        assert!(matches!(step, Step::Again));
    }
}

#[test]
fn export_name_answers_with_size_flags_and_padding() {
    for (flags, padding) in [(1u32, 124), (3, 0)] {
        let mut handshake = Handshake::new(1);
        handshake.advance(&flags.to_be_bytes(), &one(), &mut Vec::new());
        let mut out = Vec::new();
        let bytes = option_bytes(option::EXPORT_NAME, b"demo");
        let (used, step) = handshake.advance(&bytes, &one(), &mut out);
        assert_eq!(used, bytes.len());
        let Step::Chosen(chosen) = step else { panic!("{step:?}") };
        assert_eq!((chosen.export.name.as_str(), chosen.mode), ("demo", Mode::Simple));
        assert_eq!(out[..8], (1u64 << 30).to_be_bytes());
        // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO.
        assert_eq!(out[8..10], 0b1101_0110_1101u16.to_be_bytes());
        assert_eq!(out[10..], vec![0; padding]);
    }
}

#[test]
fn export_name_of_what_is_not_there_ends_the_session() {
    let step = Client::new(two()).send(option::EXPORT_NAME, b"nope").1;
    assert!(matches!(step, Step::End(HandshakeEnd::UnknownExport(name)) if name == "nope"));
    // There is no default among two.
    let step = Client::new(two()).send(option::EXPORT_NAME, b"").1;
    assert!(matches!(step, Step::End(HandshakeEnd::UnknownExport(_))));
    let step = Client::new(two()).send(option::EXPORT_NAME, b"\xff").1;
    assert!(matches!(step, Step::End(HandshakeEnd::Violation(_))));
}

#[test]
fn abort_is_acknowledged_with_or_without_data() {
    for data in [&b""[..], b"bye"] {
        let (out, step) = Client::new(one()).send(option::ABORT, data);
        assert!(matches!(step, Step::End(HandshakeEnd::Aborted)));
        assert_eq!(replies(&out), [(option::ABORT, reply::ACK, vec![])]);
    }
}

#[test]
fn list_names_every_export_with_its_description() {
    let mut client = Client::new(two());
    let expected = [
        (option::LIST, reply::SERVER, b"\0\0\0\x04demovolume demo".to_vec()),
        (option::LIST, reply::SERVER, b"\0\0\0\x07archivevolume archive".to_vec()),
        (option::LIST, reply::ACK, vec![]),
    ];
    assert_eq!(client.ask(option::LIST, b""), expected);
    assert_eq!(client.kinds(option::LIST, b"x"), [reply::ERR_INVALID]);
    assert_eq!(Client::new(Directory(vec![])).kinds(option::LIST, b""), [reply::ACK]);
}

#[test]
fn info_describes_and_leaves_the_handshake_going() {
    let mut client = Client::new(one());
    let all = [info::EXPORT, info::NAME, info::DESCRIPTION, info::BLOCK_SIZE, 77];
    let got = client.ask(option::INFO, &info_data("", &all));
    let mut size_and_flags = vec![0, 0];
    size_and_flags.extend((1u64 << 30).to_be_bytes());
    size_and_flags.extend(0b1101_0110_1101u16.to_be_bytes());
    let mut sizes = vec![0, 3];
    sizes.extend(512u32.to_be_bytes());
    sizes.extend(4096u32.to_be_bytes());
    sizes.extend((32u32 << 20).to_be_bytes());
    let expected = [
        (option::INFO, reply::INFO, size_and_flags),
        (option::INFO, reply::INFO, sizes),
        (option::INFO, reply::INFO, b"\0\x01demo".to_vec()),
        (option::INFO, reply::INFO, b"\0\x02volume demo".to_vec()),
        (option::INFO, reply::ACK, vec![]),
    ];
    assert_eq!(got, expected);
    // Name and description only on demand; the size constraints always.
    assert_eq!(client.ask(option::INFO, &info_data("demo", &[])).len(), 3);
}

#[test]
fn go_ends_the_handshake_only_on_success() {
    let mut client = Client::new(two());
    assert_eq!(client.kinds(option::GO, &info_data("nope", &[])), [reply::ERR_UNKNOWN]);
    assert_eq!(client.kinds(option::GO, &info_data("", &[])), [reply::ERR_UNKNOWN]);
    let chosen = client.go("archive");
    assert_eq!(chosen.export, export("archive", true));
}

#[test]
fn malformed_info_requests_are_invalid() {
    let mut client = Client::new(one());
    let good = info_data("demo", &[1]);
    let mut cases: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    cases.push([&good[..], &[0]].concat());
    cases.push(info_data("de\0mo", &[]));
    cases.push(info_data(&"n".repeat(4097), &[]));
    cases.push([&[0, 0, 0, 1, 0xff], &[0, 0][..]].concat());
    cases.push(vec![0xff; 64]);
    for case in cases {
        assert_eq!(client.kinds(option::INFO, &case), [reply::ERR_INVALID], "{case:?}");
        assert_eq!(client.kinds(option::GO, &case), [reply::ERR_INVALID], "{case:?}");
    }
    assert_eq!(client.go("demo").mode, Mode::Simple);
}

#[test]
fn unknown_options_are_unsupported_and_the_next_one_is_understood() {
    let mut client = Client::new(one());
    // PEEK_EXPORT (withdrawn), STARTTLS (no TLS here), and what nobody has defined.
    for unknown in [0, 4, 5, 12, 0x8000_0001, u32::MAX] {
        assert_eq!(client.kinds(unknown, b"data"), [reply::ERR_UNSUP], "{unknown}");
    }
    client.go("demo");
}

#[test]
fn structured_replies_and_extended_headers() {
    let mut client = Client::new(one());
    assert_eq!(client.kinds(option::STRUCTURED_REPLY, b"x"), [reply::ERR_INVALID]);
    assert_eq!(client.kinds(option::STRUCTURED_REPLY, b""), [reply::ACK]);
    assert_eq!(client.go("demo").mode, Mode::Structured);

    let mut client = Client::new(one());
    assert_eq!(client.kinds(option::EXTENDED_HEADERS, b"x"), [reply::ERR_INVALID]);
    assert_eq!(client.kinds(option::EXTENDED_HEADERS, b""), [reply::ACK]);
    assert_eq!(client.kinds(option::STRUCTURED_REPLY, b""), [reply::ERR_EXT_HEADER_REQD]);
    assert_eq!(client.go("demo").mode, Mode::Extended);

    let mut client = Client::new(one());
    client.ask(option::STRUCTURED_REPLY, b"");
    client.ask(option::EXTENDED_HEADERS, b"");
    assert_eq!(client.go("demo").mode, Mode::Extended);
}

#[test]
fn export_name_after_extended_headers_ends_the_session() {
    let mut client = Client::new(one());
    client.ask(option::EXTENDED_HEADERS, b"");
    let step = client.send(option::EXPORT_NAME, b"demo").1;
    assert!(matches!(step, Step::End(HandshakeEnd::Violation(_))));
}

#[test]
fn transmission_flags_follow_the_mode_and_the_export() {
    let flags = |client: &mut Client, name: &str| {
        let data = &client.ask(option::INFO, &info_data(name, &[]))[0].2;
        u16::from_be_bytes(data[10..12].try_into().unwrap())
    };
    let mut client = Client::new(two());
    assert_eq!(flags(&mut client, "demo") & (tf::SEND_DF | tf::READ_ONLY), 0);
    let read_only = flags(&mut client, "archive");
    assert_eq!(read_only & (tf::SEND_TRIM | tf::SEND_WRITE_ZEROES | tf::SEND_FAST_ZERO), 0);
    assert_ne!(read_only & tf::READ_ONLY, 0);
    client.ask(option::STRUCTURED_REPLY, b"");
    assert_ne!(flags(&mut client, "demo") & tf::SEND_DF, 0);
}

fn context_reply(option: u32, id: u32) -> OptionReply {
    (option, reply::META_CONTEXT, [&id.to_be_bytes()[..], b"base:allocation"].concat())
}

#[test]
fn contexts_need_structured_replies() {
    let mut client = Client::new(one());
    let data = meta_data("demo", &["base:allocation"]);
    assert_eq!(client.kinds(option::LIST_META_CONTEXT, &data), [reply::ERR_INVALID]);
    assert_eq!(client.kinds(option::SET_META_CONTEXT, &data), [reply::ERR_INVALID]);
    client.ask(option::EXTENDED_HEADERS, b"");
    assert_eq!(client.kinds(option::SET_META_CONTEXT, &data), [reply::META_CONTEXT, reply::ACK]);
}

#[test]
fn contexts_are_listed_by_query_and_wildcard() {
    let mut client = Client::new(one());
    client.ask(option::STRUCTURED_REPLY, b"");
    let option = option::LIST_META_CONTEXT;
    let ack = (option, reply::ACK, vec![]);
    for queries in [&[][..], &["base:"], &["base:allocation"], &["x-y:z", "base:", "base:"]] {
        let got = client.ask(option, &meta_data("demo", queries));
        assert_eq!(got, [context_reply(option, 0), ack.clone()], "{queries:?}");
    }
    for queries in [&["base:other"][..], &["qemu:dirty-bitmap:x"], &["x-none:"]] {
        assert_eq!(client.ask(option, &meta_data("demo", queries)), std::slice::from_ref(&ack));
    }
    assert_eq!(client.kinds(option, &meta_data("nope", &[])), [reply::ERR_UNKNOWN]);
    assert_eq!(client.kinds(option, &meta_data("demo", &["nocolon"])), [reply::ERR_INVALID]);
    let many = vec!["base:"; 257];
    assert_eq!(client.kinds(option, &meta_data("demo", &many)), [reply::ERR_TOO_BIG]);
}

#[test]
fn a_context_is_selected_by_its_name_only() {
    let mut client = Client::new(one());
    client.ask(option::STRUCTURED_REPLY, b"");
    let option = option::SET_META_CONTEXT;
    let ack = (option, reply::ACK, vec![]);
    for queries in [&[][..], &["base:"], &["base:other"]] {
        assert_eq!(client.ask(option, &meta_data("demo", queries)), std::slice::from_ref(&ack));
    }
    assert!(!client.go("demo").contexts.allocation);
    let twice = meta_data("", &["base:allocation", "base:allocation"]);
    assert_eq!(client.ask(option, &twice), [context_reply(option, ALLOCATION_ID), ack]);
    assert!(client.go("demo").contexts.allocation);
}

#[test]
fn a_selection_is_replaced_by_the_next_even_if_that_fails() {
    let data = meta_data("demo", &["base:allocation"]);
    let failing: [(u32, Vec<u8>); 4] = [
        (option::SET_META_CONTEXT, meta_data("demo", &[])),
        (option::SET_META_CONTEXT, meta_data("nope", &["base:allocation"])),
        (option::SET_META_CONTEXT, b"junk".to_vec()),
        (option::SET_META_CONTEXT, meta_data("archive", &["base:allocation"])),
    ];
    for (option, second) in failing {
        let mut client = Client::new(two());
        client.ask(option::STRUCTURED_REPLY, b"");
        client.ask(option::SET_META_CONTEXT, &data);
        client.ask(option, &second);
        assert!(!client.go("demo").contexts.allocation, "{second:?}");
    }
    // One for another export than the chosen one counts for nothing.
    let mut client = Client::new(two());
    client.ask(option::STRUCTURED_REPLY, b"");
    client.ask(option::SET_META_CONTEXT, &data);
    assert!(!client.go("archive").contexts.allocation);
}

#[test]
fn malformed_context_requests_are_invalid() {
    let mut client = Client::new(one());
    client.ask(option::STRUCTURED_REPLY, b"");
    let good = meta_data("demo", &["base:allocation", "base:"]);
    for len in 0..good.len() {
        assert_eq!(client.kinds(option::SET_META_CONTEXT, &good[..len]), [reply::ERR_INVALID]);
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(client.kinds(option::SET_META_CONTEXT, &longer), [reply::ERR_INVALID]);
}

#[test]
fn a_long_option_is_skipped_in_any_number_of_steps() {
    for (option, error) in [(option::GO, reply::ERR_TOO_BIG), (99, reply::ERR_UNSUP)] {
        let mut client = Client::new(one());
        let mut bytes = option_bytes(option, &vec![7; OPTION_BYTES_MAX as usize + 1]);
        bytes.extend(option_bytes(option::GO, &info_data("demo", &[])));
        let mut out = Vec::new();
        let (mut at, mut seen) = (0, 0);
        loop {
            seen = (seen + 1000).min(bytes.len());
            let (used, step) =
                client.handshake.advance(&bytes[at..seen], &client.exports, &mut out);
            at += used;
            match step {
                Step::Again | Step::NeedMore => {}
                Step::Chosen(_) => break,
                Step::End(end) => panic!("{end}"),
            }
        }
        assert_eq!(replies(&out)[0].1, error);
    }
}

#[test]
fn options_without_end_are_not_read() {
    let mut header = OPTION_MAGIC.to_be_bytes().to_vec();
    header.extend(99u32.to_be_bytes());
    header.extend((SKIP_BYTES_MAX + 1).to_be_bytes());
    let mut client = Client::new(one());
    let step = client.handshake.advance(&header, &client.exports, &mut Vec::new()).1;
    assert!(matches!(step, Step::End(HandshakeEnd::Violation(_))));
}

#[test]
fn bad_magic_and_too_many_options_end_the_session() {
    let mut client = Client::new(one());
    let step = client.handshake.advance(&[0; 16], &client.exports, &mut Vec::new()).1;
    assert!(matches!(step, Step::End(HandshakeEnd::Violation(_))));
    let mut client = Client::new(one());
    for _ in 0..100 {
        client.ask(option::LIST, b"");
    }
    let bytes = option_bytes(option::LIST, b"");
    let step = client.handshake.advance(&bytes, &client.exports, &mut Vec::new()).1;
    assert!(matches!(step, Step::End(HandshakeEnd::Violation(_))));
}

/// Runs a whole input in random portions: what was said, and how it ended.
fn run(input: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let exports = two();
    let mut handshake = Handshake::new(50);
    let mut out = Vec::new();
    let (mut at, mut seen) = (0, 0);
    loop {
        let (used, step) = handshake.advance(&input[at..seen], &exports, &mut out);
        at += used;
        assert!(at <= seen);
        match step {
            Step::Again => {}
            Step::NeedMore if seen == input.len() => return (out, "starved".into()),
            Step::NeedMore => {
                assert!(seen - at <= OPTION_BYTES_MAX as usize + OPTION_HEADER_BYTES);
                seen = (seen + rng.random_range(1..2000)).min(input.len());
            }
            Step::Chosen(chosen) => return (out, format!("{at} {chosen:?}")),
            Step::End(end) => return (out, end.to_string()),
        }
    }
}

/// Valid conversations, damaged at random: no panic, nothing said twice or
/// depending on how the bytes were cut.
#[test]
fn damaged_conversations_never_panic_and_do_not_depend_on_packets() {
    let mut rng = ChaCha8Rng::seed_from_u64(20261120);
    let (mut chosen, mut ended) = (0, 0);
    for _ in 0..3000 {
        let mut input = vec![0, 0, 0, rng.random_range(0..4)];
        for _ in 0..rng.random_range(0..8) {
            let option = rng.random_range(0..14);
            let name = ["demo", "archive", "", "x"][rng.random_range(0..4)];
            let data = match option {
                1 => name.as_bytes().to_vec(),
                6 | 7 => info_data(name, &[1, 2, 3][..rng.random_range(0..4)]),
                9 | 10 => {
                    let queries = ["base:allocation", "base:", "x-a:b", "bad"];
                    meta_data(name, &queries[..rng.random_range(0..5)])
                }
                12 => vec![1; rng.random_range(0..80_000)],
                _ => vec![],
            };
            input.extend(option_bytes(option, &data));
        }
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..input.len());
            match rng.random_range(0..3) {
                0 => input[at] ^= 1 << rng.random_range(0..8),
                1 => input.truncate(at.max(4)),
                _ => input.insert(at, rng.random()),
            }
        }
        let first = run(&input, &mut rng);
        assert_eq!(first, run(&input, &mut rng));
        chosen += usize::from(first.1.contains("Chosen"));
        ended += usize::from(!first.1.contains("Chosen") && first.1 != "starved");
    }
    assert!(chosen > 200 && ended > 200, "{chosen} {ended}");
}

#[test]
fn noise_never_panics() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..2000 {
        let mut input = vec![0, 0, 0, 3];
        input.extend(OPTION_MAGIC.to_be_bytes());
        input.extend((0..rng.random_range(0..300)).map(|_| rng.random::<u8>() & 0x0f));
        run(&input, &mut rng);
    }
}
