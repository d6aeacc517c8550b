//! libnbd's Python binding: every command and flag, and the handshake.

use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use std::path::Path;

/// Runs one function of `commands.py`; Debian's binding needs Debian's Python.
fn script(name: &str, fixture: &Fixture) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/commands.py");
    for uri in [fixture.unix(), fixture.tcp()] {
        let said = tools::succeed(&mut command!("/usr/bin/python3", "-B", &file, name, uri));
        println!("{}", said.unwrap());
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            script(stringify!($name), &Fixture::start(["--size", "128MiB"]).unwrap());
        }
    )*};
}

scripts!(
    reads,
    writes,
    zeroes,
    trims,
    flushes_and_caches,
    block_status,
    errors_leave_the_connection_usable,
    many_in_flight_out_of_order,
    several_connections,
    simple_replies,
    haggling,
    export_name,
    disconnects,
);

/// The same on a volume with blocks of 4096 bytes.
#[test]
fn blocks_of_4096() {
    script(
        "blocks_of_4096",
        &Fixture::start(["--size", "128MiB", "--block-size", "4096"]).unwrap(),
    );
}
