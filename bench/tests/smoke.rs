//! The comparison works with what is installed, and leaves nothing behind. It judges no times.

use holdfast_bench::outcome::Outcome;
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn every_server_has_every_figure() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_holdfast-bench"));
    bench.args(["compare", "--smoke", "--dir"]).arg(&data).arg("--out").arg(&out);
    let said = bench.output().unwrap();
    let steps = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{steps}");

    let json = std::fs::read_to_string(out.join("outcome.json")).unwrap();
    let outcome: Outcome = serde_json::from_str(&json).unwrap();
    let columns = outcome.blocks.iter().flat_map(|block| &block.columns);
    let there: BTreeSet<&str> =
        columns.filter(|column| column.absent.is_none()).map(|column| column.id.as_str()).collect();
    // What continuous integration installs.
    for id in ["holdfast-x3", "floor", "raw", "qemu-nbd", "quorum"] {
        assert!(there.contains(id), "{id} is not among {there:?}\n{steps}");
    }
    assert!(out.join("report.md").exists());
    let pictures = std::fs::read_dir(&out).unwrap().flatten();
    assert!(
        pictures.map(|file| file.path()).any(|path| path.extension().is_some_and(|e| e == "svg"))
    );

    let left: Vec<_> = std::fs::read_dir(&data).unwrap().flatten().map(|f| f.file_name()).collect();
    assert_eq!(left, ["holdfast-bench-data.lock"]);
}
