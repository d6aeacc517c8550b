//! `nbdinfo`: what the export says about itself, and where it has data.

use crate::MIB;
use crate::serve;
use holdfast_tests::fixture::Fixture;
use holdfast_tests::{command, tools};
use serde_json::Value;

fn json(command: &mut std::process::Command) -> Value {
    serde_json::from_str(&tools::succeed(command).unwrap()).unwrap()
}

#[test]
fn describes_the_export() {
    let fixture = serve();
    for uri in [fixture.tcp(), fixture.unix()] {
        let info = json(&mut command!("nbdinfo", "--json", uri));
        println!("{info:#}");
        assert_eq!(info["protocol"], "newstyle-fixed");
        assert_eq!(info["structured"], true);
        let export = &info["exports"][0];
        assert_eq!(export["export-name"], "demo");
        assert_eq!(export["export-size"], 256 * MIB);
        assert_eq!(export["is_read_only"], false);
        for can in [
            "can_cache",
            "can_df",
            "can_fast_zero",
            "can_flush",
            "can_fua",
            "can_multi_conn",
            "can_trim",
            "can_zero",
        ] {
            assert_eq!(export[can], true, "{can}");
        }
        assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
        assert_eq!(export["block_size_minimum"], 512);
        assert_eq!(export["block_size_preferred"], 4096);
        assert_eq!(export["block_size_maximum"], 32 * MIB);
    }
}

#[test]
fn lists_the_volume() {
    let fixture =
        Fixture::start(["--size", "64MiB", "--volume", "pg-data", "--block-size", "4096"]).unwrap();
    let uri = fixture.tcp().strip_suffix("pg-data").unwrap();
    let list = json(&mut command!("nbdinfo", "--list", "--json", uri));
    println!("{list:#}");
    let exports = list["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 1);
    assert_eq!(exports[0]["export-name"], "pg-data");
    assert_eq!(exports[0]["export-size"], 64 * MIB);
    assert_eq!(exports[0]["block_size_minimum"], 4096);
}

#[test]
fn refuses_an_export_that_is_not_there() {
    let fixture = serve();
    let uri = fixture.tcp().replace("/demo", "/nothing");
    let said = tools::run(&mut command!("nbdinfo", uri)).unwrap();
    assert_ne!(said.code, 0);
    assert!(said.err.contains("nothing"), "{said:?}");
    // And goes on serving.
    tools::succeed(&mut command!("nbdinfo", "--size", fixture.tcp())).unwrap();
}

/// (offset, length, type) of each extent.
fn map(uri: &str) -> Vec<(u64, u64, u64)> {
    let map = json(&mut command!("nbdinfo", "--map", "--json", uri));
    let number = |extent: &Value, name: &str| extent[name].as_u64().unwrap();
    map.as_array()
        .unwrap()
        .iter()
        .map(|e| (number(e, "offset"), number(e, "length"), number(e, "type")))
        .collect()
}

#[test]
fn maps_what_was_written_and_what_was_not() {
    const DATA: u64 = 0;
    const HOLE: u64 = 3;
    let mut fixture = serve();
    assert_eq!(map(fixture.unix()), [(0, 256 * MIB, HOLE)]);
    let write = |uri: &str, what: &str| {
        tools::succeed(&mut command!("qemu-io", "-f", "raw", "-c", what, uri)).unwrap();
    };
    write(fixture.unix(), "write -P 1 1M 128k");
    write(fixture.unix(), "write -P 2 5M 4k");
    write(fixture.unix(), "write -P 3 9000k 512");
    let written = [
        (0, MIB, HOLE),
        (MIB, 128 << 10, DATA),
        (MIB + (128 << 10), 4 * MIB - (128 << 10), HOLE),
        (5 * MIB, 4096, DATA),
        (5 * MIB + 4096, 9000 * 1024 - 5 * MIB - 4096, HOLE),
        (9000 * 1024, 4096, DATA),
        (9000 * 1024 + 4096, 256 * MIB - 9000 * 1024 - 4096, HOLE),
    ];
    assert_eq!(map(fixture.unix()), written);
    fixture.restart().unwrap();
    assert_eq!(map(fixture.unix()), written, "after a restart");
    write(fixture.unix(), "discard 1M 128k");
    write(fixture.unix(), "discard 5M 4k");
    let discarded = [
        (0, 9000 * 1024, HOLE),
        (9000 * 1024, 4096, DATA),
        (9000 * 1024 + 4096, 256 * MIB - 9000 * 1024 - 4096, HOLE),
    ];
    assert_eq!(map(fixture.unix()), discarded);
    fixture.restart().unwrap();
    assert_eq!(map(fixture.unix()), discarded, "after another restart");
}
