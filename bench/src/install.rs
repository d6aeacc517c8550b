//! Programs that the bench runs and does not bring: found, or installed where that is possible
//! and wanted, or said to be missing in words that a column of the report can carry.
//!
//! Only Debian and what is made from it is known, and only root may install.

use holdfast_tests::{command, tools};
use std::path::Path;
use std::sync::Mutex;

/// Seconds that apt-get waits for another one to finish, and for a server that does not answer.
const APT_PATIENCE_S: u32 = 60;

/// Whether the lists of packages are fresh; held while apt-get runs, which bears no second one.
static LISTS_ARE_FRESH: Mutex<bool> = Mutex::new(false);

/// What is needed for a part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Looked for in `PATH`.
    pub programs: &'static [&'static str],
    /// Where Debian has them.
    pub packages: &'static [&'static str],
}

/// The client.
pub const FIO: Needs = Needs { programs: &["fio"], packages: &["fio"] };
/// qemu-nbd, and the drivers in it.
pub const QEMU: Needs = Needs { programs: &["qemu-nbd"], packages: &["qemu-utils"] };
/// What counts system calls.
pub const PERF: Needs = Needs { programs: &["perf"], packages: &["linux-perf"] };
/// Ceph's daemons and tools; fio's engine for it is in fio.
pub const CEPH: Needs = Needs {
    programs: &["ceph", "ceph-authtool", "ceph-mgr", "ceph-mon", "ceph-osd", "monmaptool", "rbd"],
    packages: &["ceph-common", "ceph-mgr", "ceph-mon", "ceph-osd"],
};

impl Needs {
    /// The programs that are not in `PATH`.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there =
            |program: &&str| std::env::split_paths(&path).any(|dir| is_program(&dir.join(program)));
        self.programs.iter().copied().filter(|program| !is_there(program)).collect()
    }

    /// Sees to it that the programs are there. With `install` it installs what is missing, and
    /// tells `say` before.
    ///
    /// # Errors
    /// Why they are not there, in a line.
    pub fn ensure(&self, install: bool, say: &mut dyn FnMut(&str)) -> Result<(), String> {
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let without = |why: &str| {
            let packages = self.packages.join(" ");
            format!("not installed: {} (packages {packages}); {why}", missing.join(", "))
        };
        if !install {
            return Err(without("nothing is installed with --no-install"));
        }
        let apt = Needs { programs: &["apt-get"], packages: &[] };
        if !apt.missing().is_empty() {
            return Err(without("there is no apt-get to install them"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(without("only root may install them"));
        }
        install_packages(self.packages, say).map_err(|error| without(&error))?;
        match self.missing() {
            still if still.is_empty() => Ok(()),
            still => Err(format!("the packages are installed and lack {}", still.join(", "))),
        }
    }
}

fn is_program(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

fn install_packages(packages: &[&str], say: &mut dyn FnMut(&str)) -> Result<(), String> {
    // Whoever panicked with it left apt-get as it was.
    let mut fresh = LISTS_ARE_FRESH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*fresh {
        say("apt-get update");
        apt_get(&["update"])?;
        *fresh = true;
    }
    say(&format!("apt-get install --no-install-recommends {}", packages.join(" ")));
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn apt_get(args: &[&str]) -> Result<(), String> {
    let mut apt = command!("apt-get", "--quiet");
    for option in ["DPkg::Lock::Timeout", "Acquire::http::Timeout", "Acquire::https::Timeout"] {
        apt.args(["-o", &format!("{option}={APT_PATIENCE_S}")]);
    }
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    let said = tools::run(&mut apt).map_err(|error| error.to_string())?;
    if said.code == 0 {
        return Ok(());
    }
    let last = said.err.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("apt-get {} failed: {last}", args.first().copied().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONSENSE: Needs = Needs { programs: &["sh", "no-such-program"], packages: &["nothing"] };

    #[test]
    fn finds_what_is_there_and_names_what_is_not() {
        assert_eq!(Needs { programs: &["sh"], packages: &[] }.missing(), Vec::<&str>::new());
        assert_eq!(NONSENSE.missing(), ["no-such-program"]);
    }

    #[test]
    fn installs_nothing_unasked() {
        let mut said = Vec::new();
        let why = NONSENSE.ensure(false, &mut |step| said.push(step.to_owned())).unwrap_err();
        assert_eq!(said, Vec::<String>::new());
        let expected = "not installed: no-such-program (packages nothing); nothing is installed with --no-install";
        assert_eq!(why, expected);
    }
}
