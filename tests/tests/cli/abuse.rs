//! Clients that mean harm, or are broken, and what others notice of them: nothing.

use holdfast_tests::daemon::Options;
use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use rustix::process::Signal;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// More than the node has places for.
const DAWDLERS: usize = 600;
const STOP_MAX: Duration = Duration::from_secs(20);

#[test]
fn clients_that_dawdle_hold_up_no_one() {
    let mut fixture =
        Fixture::start_as(|dir| Options::new(dir).with_small_log().with(["--size", "1MiB"]))
            .unwrap();
    let connect = |name: &str| UnixStream::connect(fixture.data_dir().join(name)).unwrap();
    // Connected, and not a word of the handshake.
    let dawdlers: Vec<_> = (0..DAWDLERS).map(|_| connect("nbd.sock")).collect();
    tools::succeed(&mut command!("nbdinfo", "--size", fixture.unix())).unwrap();
    // Half a request to the management API.
    let mut half = connect("api.sock");
    half.write_all(b"GET /v1/sta").unwrap();
    fixture.status().unwrap();
    fixture.daemon.signal(Signal::TERM).unwrap();
    let status = fixture.daemon.wait(STOP_MAX).unwrap();
    assert_eq!(status.code(), Some(0), "{}", fixture.daemon.log());
    drop((dawdlers, half));
}
