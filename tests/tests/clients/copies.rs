//! `nbdcopy`, both ways and between volumes.

use crate::serve;
use crate::{MIB, assert_same, read, sparse_bytes};
use holdfast_tests::{command, tools};

#[test]
fn a_file_comes_back_as_it_went() {
    let mut fixture = serve();
    let bytes = sparse_bytes(200 * MIB as usize, 1);
    let (source, back) = (fixture.path("source"), fixture.path("back"));
    std::fs::write(&source, &bytes).unwrap();
    tools::succeed(&mut command!("nbdcopy", "--flush", &source, fixture.unix())).unwrap();
    tools::succeed(&mut command!("nbdcopy", fixture.tcp(), &back)).unwrap();
    // The volume is longer than the file, and zero there.
    let mut expected = bytes;
    expected.resize(256 * MIB as usize, 0);
    assert_same(&read(&back), &expected);
    fixture.restart().unwrap();
    tools::succeed(&mut command!("nbdcopy", "--connections=4", fixture.unix(), &back)).unwrap();
    assert_same(&read(&back), &expected);
}

#[test]
fn holes_stay_holes_between_volumes() {
    let (from, to) = (serve(), serve());
    let bytes = sparse_bytes(256 * MIB as usize, 2);
    let (source, back) = (from.path("source"), from.path("back"));
    std::fs::write(&source, &bytes).unwrap();
    let copy = |a: &dyn AsRef<std::ffi::OsStr>, b: &dyn AsRef<std::ffi::OsStr>| {
        tools::succeed(&mut command!("nbdcopy", a, b)).unwrap();
    };
    copy(&source, &from.unix());
    copy(&from.unix(), &to.unix());
    copy(&to.unix(), &back);
    assert_same(&read(&back), &bytes);
    let totals = tools::succeed(&mut command!("nbdinfo", "--map", "--totals", to.unix())).unwrap();
    println!("{totals}");
    // 366 pieces of 33 KiB to 215 KiB: far less than half of the volume is data.
    let data = totals.lines().find(|line| line.ends_with("data")).unwrap();
    let percent: f64 =
        data.split_whitespace().nth(1).unwrap().trim_end_matches('%').parse().unwrap();
    assert!(percent < 50.0, "{totals}");
}

#[test]
fn allocated_zeroes_read_as_zeroes() {
    let fixture = serve();
    let bytes = sparse_bytes(64 * MIB as usize, 3);
    let (source, back) = (fixture.path("source"), fixture.path("back"));
    std::fs::write(&source, &bytes).unwrap();
    // Twice, so that the second finds other data where its zeroes go.
    std::fs::write(&back, crate::random_bytes(bytes.len(), 4)).unwrap();
    tools::succeed(&mut command!("nbdcopy", &back, fixture.unix())).unwrap();
    tools::succeed(&mut command!("nbdcopy", "--allocated", &source, fixture.unix())).unwrap();
    tools::succeed(&mut command!("nbdcopy", fixture.unix(), &back)).unwrap();
    assert_same(&read(&back)[..bytes.len()], &bytes);
}
