//! Makes a cluster and waits until it is whole.

use super::COPIES;
use super::config::{Config, random_uuid};
use super::daemons::Daemons;
use holdfast_tests::{Error, Result, command, tools};
use std::fs;
use std::time::{Duration, Instant};

/// The pool of the images.
pub(super) const POOL: &str = "rbd";
/// Placement groups of the pool; some 20 for each OSD and copy are what Ceph advises.
const PLACEMENT_GROUPS: &str = "64";
/// Between questions, each of which starts a program in Python.
const POLL: Duration = Duration::from_millis(500);
/// Each step of coming up takes seconds; on a busy machine some more.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// The monitor's id.
const MON: &str = "a";
/// The first bytes of an OSD's file, where BlueStore looks for an earlier one.
const LABEL_MIB: &str = "8";

/// Makes the monitor, the manager, the OSDs and the pool.
pub(super) fn make(config: &Config, daemons: &mut Daemons) -> Result<()> {
    make_monitor(config)?;
    daemons.start(config, "mon", MON)?;
    wait("the monitor", daemons, || Ok(config.ask(&["mon", "stat"]).is_ok()))?;
    make_dir(config, "mgr.x")?;
    daemons.start(config, "mgr", "x")?;
    for osd in 0..COPIES {
        make_osd(config, osd)?;
        daemons.start(config, "osd", &osd.to_string())?;
    }
    // Its modules answer some of what follows, and wait for it without an end.
    let active = |answer: serde_json::Value| answer["available"] == true;
    wait("the manager", daemons, || Ok(active(config.ask(&["mgr", "stat"])?)))?;
    let up = |answer: serde_json::Value| answer["num_up_osds"].as_u64() == Some(COPIES.into());
    wait("the OSDs", daemons, || Ok(up(config.ask(&["osd", "stat"])?)))?;
    for settings in [
        // Not in the way of a measurement.
        ["balancer", "off"].as_slice(),
        &["device", "monitoring", "off"],
        // What the warnings and stops of a full cluster are for is not at stake.
        &["osd", "set-nearfull-ratio", "0.92"],
        &["osd", "set-backfillfull-ratio", "0.94"],
        &["osd", "set-full-ratio", "0.96"],
        &["osd", "pool", "create", POOL, PLACEMENT_GROUPS, PLACEMENT_GROUPS, "replicated"],
        &["osd", "pool", "application", "enable", POOL, "rbd"],
    ] {
        config.ask(settings)?;
    }
    wait_clean(config, daemons)
}

fn make_monitor(config: &Config) -> Result<()> {
    let run =
        |program: &str, args: &[&str]| tools::succeed(config.tool(program).args(args)).map(drop);
    let all = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
    run(
        "ceph-authtool",
        &["keyring", "--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"],
    )?;
    run(
        "ceph-authtool",
        &[&["keyring", "--gen-key", "-n", "client.admin"], all.as_slice()].concat(),
    )?;
    // Without a least release it speaks the protocols of old ones.
    let release = ["--set-min-mon-release", "pacific"];
    let address = ["--addv", MON, &config.monitor(), "monmap"];
    run(
        "monmaptool",
        &[&["--create", "--fsid", config.fsid()], release.as_slice(), &address].concat(),
    )?;
    make_dir(config, &format!("mon.{MON}"))?;
    run("ceph-mon", &["--mkfs", "-i", MON, "--monmap", "monmap", "--keyring", "keyring"])
}

fn make_osd(config: &Config, osd: u32) -> Result<()> {
    let (name, id, uuid) = (format!("osd.{osd}"), osd.to_string(), random_uuid()?);
    make_dir(config, &name)?;
    let block = config.dir().join(&name).join("block");
    // Written once, or the file system would do on the first write of each part what it does
    // once and not again.
    let mut fill = command!("fio", "--name=fill", "--ioengine=io_uring", "--direct=1");
    fill.args(["--rw=write", "--bs=4m", "--iodepth=4", "--fallocate=posix", "--end_fsync=1"]);
    fill.arg(format!("--size={}", config.osd_bytes()))
        .arg(format!("--filename={}", block.display()));
    tools::succeed(&mut fill)?;
    let mut label = command!("dd", "if=/dev/zero", "bs=1M", "conv=notrunc,fsync", "status=none");
    label.arg(format!("count={LABEL_MIB}")).arg(format!("of={}", block.display()));
    tools::succeed(&mut label)?;
    config.ask(&["osd", "new", &uuid, &id])?;
    tools::succeed(config.tool("ceph-osd").args(["--mkfs", "-i", &id, "--osd-uuid", &uuid]))?;
    Ok(())
}

fn make_dir(config: &Config, name: &str) -> Result<()> {
    fs::create_dir(config.dir().join(name)).map_err(Error::io(format!("make {name}'s directory")))
}

/// Waits until every placement group is active and clean.
fn wait_clean(config: &Config, daemons: &Daemons) -> Result<()> {
    let clean = |answer: serde_json::Value| {
        let states = answer["pg_summary"]["num_pg_by_state"].as_array().cloned();
        let states = states.unwrap_or_default();
        !states.is_empty() && states.iter().all(|state| state["name"] == "active+clean")
    };
    wait("the placement groups", daemons, || Ok(clean(config.ask(&["pg", "stat"])?)))
}

/// Waits for `what`, which does not come when a daemon ends.
fn wait(what: &str, daemons: &Daemons, mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + UP_WITHIN;
    while !is_there()? {
        daemons.processes()?;
        if Instant::now() > deadline {
            return Err(Error::Server(format!("ceph: waited {UP_WITHIN:?} in vain for {what}")));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
