//! Many requests at once, in any portions, and clients that do not keep up.

use crate::{client::*, server::*};
use holdfast_frontend::nbd::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_REQUESTS_MAX, PAYLOAD_BYTES_MAX};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

#[test]
fn requests_arrive_in_order_and_replies_in_the_order_of_completion() {
    for mode in MODES {
        let server = Server::start();
        let mut client = Client::open(&server, mode, false);
        server.hold(true);
        let cookies: Vec<_> = (0..100u64)
            .map(|i| match i % 3 {
                0 => client.begin_write(0, i * 4096, &pattern(i, 4096)),
                1 => client.begin(READ, 0, i * 4096, 8192),
                _ => client.begin(TRIM, 0, i * 4096, 512),
            })
            .collect();
        server.settles_at(100);
        let offsets: Vec<_> = server.log().iter().map(|entry| entry.1).collect();
        assert_eq!(offsets, (0..100).map(|i| i * 4096).collect::<Vec<_>>());
        for cookie in cookies.iter().rev() {
            assert!(server.release(true));
            assert_eq!(client.finish(*cookie).error, 0);
        }
    }
}

#[test]
fn a_session_byte_by_byte() {
    for mode in MODES {
        let server = Server::start();
        let mut client = Client::open_in_steps(&server, mode, false, 1);
        assert_eq!(client.write(512, &pattern(1, 1024)), 0);
        assert_eq!(client.write(1, &pattern(1, 512)), EINVAL);
        assert!(client.read(512, 1024) == pattern(1, 1024));
        assert_eq!(client.call(FLUSH, 0, 0, 0).error, 0);
    }
}

/// The same conversation in portions of every size, checked against a model.
#[test]
fn a_conversation_in_random_portions() {
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    for (round, mode) in MODES.into_iter().cycle().take(12).enumerate() {
        let server = Server::start();
        let mut client = Client::open(&server, mode, round % 2 == 1);
        let mut model = vec![0u8; 8 << 20];
        for batch in 0..20 {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for _ in 0..rng.random_range(1..40) {
                let large = rng.random_bool(0.1);
                let len = rng.random_range(1..=if large { 1500 } else { 20 }) * 512;
                let offset = rng.random_range(0..(model.len() - len) / 512) * 512;
                let range = offset..offset + len;
                if rng.random_bool(0.5) {
                    let data = pattern(rng.random(), len);
                    let (cookie, header) = client.request(WRITE, 0, offset as u64, len as u64);
                    bytes.extend(header);
                    bytes.extend(&data);
                    model[range].copy_from_slice(&data);
                    expected.push((cookie, None));
                } else {
                    let (cookie, header) = client.request(READ, 0, offset as u64, len as u64);
                    bytes.extend(header);
                    expected.push((cookie, Some(model[range].to_vec())));
                }
            }
            client.step = if batch % 2 == 0 { usize::MAX } else { rng.random_range(1000..50_000) };
            // Replies are taken at the same time, or the two would wait for each other.
            let mut at = 0;
            let mut answers = expected.into_iter();
            while at < bytes.len() {
                let sent = bytes.len().min(at + (2 << 20)) - at;
                at += client.send_until_full(&bytes[at..at + sent]);
                if at < bytes.len()
                    && let Some((cookie, data)) = answers.next()
                {
                    check(&mut client, cookie, data);
                }
            }
            for (cookie, data) in answers {
                check(&mut client, cookie, data);
            }
        }
    }
}

fn check(client: &mut Client, cookie: u64, data: Option<Vec<u8>>) {
    let outcome = client.finish(cookie);
    assert_eq!(outcome.error, 0);
    assert!(outcome.data == data.unwrap_or_default());
}

#[test]
fn the_number_of_requests_under_way_is_bounded() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Structured, false);
    server.hold(true);
    let mut bytes = Vec::new();
    for i in 0..IN_FLIGHT_REQUESTS_MAX as u64 + 44 {
        bytes.extend(client.request(READ, 0, i * 4096, 4096).1);
    }
    client.send(&bytes);
    server.settles_at(IN_FLIGHT_REQUESTS_MAX);
    assert!(server.release(false));
    client.any_reply();
    server.settles_at(IN_FLIGHT_REQUESTS_MAX + 1);
    server.hold(false);
    server.release_all();
    for _ in 1..IN_FLIGHT_REQUESTS_MAX + 44 {
        assert_eq!(client.any_reply().1.error, 0);
    }
}

#[test]
fn the_bytes_under_way_are_bounded_and_one_request_may_take_them_all() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Simple, false);
    server.hold(true);
    for i in 0..10 {
        client.begin(READ, 0, i << 22, 4 << 20);
    }
    client.begin(READ, 0, 0, u64::from(PAYLOAD_BYTES_MAX));
    server.settles_at(IN_FLIGHT_BYTES_MAX >> 22);
    server.hold(false);
    server.release_all();
    for _ in 0..11 {
        assert_eq!(client.any_reply().1.error, 0);
    }
    assert_eq!(server.log().len(), 11);
}

#[test]
fn refused_requests_are_bounded_too() {
    let server = Server::start();
    let mut client = Client::open(&server, Mode::Extended, false);
    // A client that asks for errors for ever and reads none of them is stopped.
    let request = client.header(99, 0, 7, 0, 0);
    let bytes = request.repeat((64 << 20) / request.len());
    let sent = client.send_until_full(&bytes);
    assert!(sent < 8 << 20, "{sent}");
    let mut other = Client::open(&server, Mode::Simple, false);
    assert_eq!(other.write(0, &pattern(1, 4096)), 0);
}

#[test]
fn a_client_that_takes_no_replies_holds_up_nobody_else() {
    for tcp in [false, true] {
        let server = Server::start();
        let mut filler = Client::open(&server, Mode::Simple, false);
        assert_eq!(filler.write(0, &pattern(1, 4 << 20)), 0);
        let mut slow = Client::open(&server, Mode::Structured, tcp);
        for _ in 0..30 {
            slow.begin(READ, 0, 0, 4 << 20);
        }
        let mut stuck = Client::open(&server, Mode::Simple, tcp);
        let half = stuck.request(WRITE, 0, 0, 1 << 20).1;
        stuck.send(&half);
        stuck.send(&[1; 5000]);
        let started = Instant::now();
        for i in 0..200 {
            assert_eq!(filler.write(8 << 20, &pattern(i, 65536)), 0);
            assert!(filler.read(8 << 20, 65536) == pattern(i, 65536));
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(server.log().iter().filter(|entry| entry == &&("read", 0)).count() < 30);
        // And when it does take them, they are all there.
        for _ in 0..30 {
            assert!(slow.any_reply().1.data == pattern(1, 4 << 20));
        }
    }
}

#[test]
fn requests_sent_ahead_of_the_handshakes_end_are_answered() {
    let server = Server::start();
    let mut client = Client::connect(&server, false);
    client.greet();
    let mut bytes = Client::option_bytes(7, b"\0\0\0\x04demo\0\0");
    let (write, header) = client.request(WRITE, 0, 4096, 8192);
    bytes.extend(header);
    bytes.extend(pattern(1, 8192));
    let (read, header) = client.request(READ, 0, 4096, 8192);
    bytes.extend(header);
    client.send(&bytes);
    client.read_acknowledgement();
    assert_eq!(client.finish(write).error, 0);
    assert!(client.finish(read).data == pattern(1, 8192));
}

/// Valid requests, damaged at random: the server answers or closes, and goes on
/// serving others.
#[test]
fn damaged_requests_never_hurt_the_server() {
    let server = Server::start();
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let mut bystander = Client::open(&server, Mode::Structured, false);
    for round in 0..150u64 {
        let mode = MODES[rng.random_range(0..3)];
        let mut client = Client::open(&server, mode, round % 5 == 0);
        let mut bytes = Vec::new();
        for _ in 0..rng.random_range(1..30) {
            let command = rng.random_range(0..9);
            if command == DISC && rng.random_bool(0.9) {
                continue;
            }
            let len = rng.random_range(0..64) * 512;
            let offset = rng.random_range(1u64 << 10..1 << 18) * 512;
            bytes.extend(client.request(command, 0, offset, len).1);
            if command == WRITE {
                bytes.extend(pattern(round, len as usize));
            }
        }
        for _ in 0..rng.random_range(0..6) {
            if !bytes.is_empty() {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
        }
        client.send_until_damage(&bytes);
        drop(client);
        assert_eq!(bystander.write(0, &pattern(round, 512)), 0);
        assert!(bystander.read(0, 512) == pattern(round, 512));
    }
    drop(bystander);
    server.ends(151);
}
