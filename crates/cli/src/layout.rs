//! What a data directory holds: the data of one node, or a directory for each node of a
//! quick start. One is never used as the other.
//!
//! A quick start's directory holds the file `nodes`, which says how many there are, and
//! `node1`, `node2` and so on, each a data directory of its own. The file is written
//! first: a node's directory that is not there is made, and its node starts blank.

use holdfast_io::{DirLock, crashsafe, dirlock::LOCK_FILE};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The file that says how many nodes a quick start has.
const MARKER: &str = "nodes";
/// What a start that did not finish, or a file system, may have left.
const LEFTOVERS: [&str; 3] = [LOCK_FILE, "nodes.new", "lost+found"];

/// Directory of the quick start's node `index`, counted from 0.
pub(crate) fn node_dir(data_dir: &Path, index: u8) -> PathBuf {
    data_dir.join(node_name(index))
}

/// Its name.
pub(crate) fn node_name(index: u8) -> String {
    format!("node{}", index + 1)
}

/// What a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nothing yet, or nothing of ours.
    Blank,
    /// One node's data.
    Node,
    /// A quick start's nodes.
    Nodes(u8),
}

impl Layout {
    /// Looks.
    pub(crate) fn of(data_dir: &Path) -> Self {
        if data_dir.join(holdfast_node::MARKER).is_file() {
            return Self::Node;
        }
        let nodes = fs::read_to_string(data_dir.join(MARKER)).ok();
        match nodes.and_then(|nodes| nodes.trim().parse().ok()) {
            Some(nodes) => Self::Nodes(nodes),
            None => Self::Blank,
        }
    }

    /// Refuses a directory that was made for another number of nodes.
    pub(crate) fn check(data_dir: &Path, nodes: u8) -> Result<(), String> {
        let dir = data_dir.display();
        match Self::of(data_dir) {
            Self::Blank => Ok(()),
            Self::Node if nodes == 1 => Ok(()),
            Self::Nodes(held) if nodes > 1 && held == nodes => Ok(()),
            Self::Node => Err(format!(
                "{dir} holds the data of a single node; start it with --nodes 1, or choose another directory with --data-dir"
            )),
            Self::Nodes(held) => Err(format!(
                "{dir} holds the data of {held} nodes; start them with --nodes {held}, or choose another directory with --data-dir"
            )),
        }
    }
}

/// The directories of a quick start's nodes.
pub(crate) fn node_dirs(data_dir: &Path) -> Vec<PathBuf> {
    match Layout::of(data_dir) {
        Layout::Nodes(nodes) => (0..nodes).map(|index| node_dir(data_dir, index)).collect(),
        Layout::Blank | Layout::Node => Vec::new(),
    }
}

/// A quick start's directory, which one process at a time uses.
#[derive(Debug)]
pub(crate) struct NodesDir {
    _lock: DirLock,
}

impl NodesDir {
    /// Locks the directory and makes what is missing in it. `check` comes before anything
    /// is written, and is told whether the nodes have run before.
    pub(crate) async fn open(
        data_dir: &Path,
        nodes: u8,
        check: impl AsyncFnOnce(bool) -> Result<(), String>,
    ) -> Result<Self, String> {
        Layout::check(data_dir, nodes)?;
        let cannot = |error: io::Error| cannot_use(data_dir, &error);
        if Layout::of(data_dir) == Layout::Blank {
            check_blank(data_dir)?;
            check(false).await?;
            if !data_dir.exists() {
                fs::create_dir_all(data_dir.parent().unwrap_or(data_dir)).map_err(cannot)?;
                crashsafe::create_dir(data_dir).map_err(cannot)?;
            }
            let lock = lock(data_dir)?;
            crashsafe::atomic_write(&data_dir.join(MARKER), format!("{nodes}\n").as_bytes())
                .map_err(cannot)?;
            Self::make(data_dir, nodes, lock)
        } else {
            let lock = lock(data_dir)?;
            check(true).await?;
            Self::make(data_dir, nodes, lock)
        }
    }

    fn make(data_dir: &Path, nodes: u8, lock: DirLock) -> Result<Self, String> {
        for index in 0..nodes {
            let dir = node_dir(data_dir, index);
            if !dir.exists() {
                crashsafe::create_dir(&dir).map_err(|error| cannot_use(data_dir, &error))?;
            }
        }
        Ok(Self { _lock: lock })
    }
}

fn lock(data_dir: &Path) -> Result<DirLock, String> {
    DirLock::acquire(data_dir).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => format!("{error} (--data-dir)"),
        _ => cannot_use(data_dir, &error),
    })
}

/// Refuses a directory with things in it that a quick start did not put there.
fn check_blank(data_dir: &Path) -> Result<(), String> {
    let cannot = |error: io::Error| cannot_use(data_dir, &error);
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(cannot)?,
    };
    for entry in entries {
        let name = entry.map_err(cannot)?.file_name();
        if !LEFTOVERS.iter().any(|left| name == *left) {
            return Err(format!(
                "{} holds other files and is no holdfast data directory; choose an empty or new one with --data-dir",
                data_dir.display()
            ));
        }
    }
    Ok(())
}

fn cannot_use(data_dir: &Path, error: &io::Error) -> String {
    format!(
        "cannot use the data directory {}: {error}; choose another with --data-dir, or make it writable",
        data_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    async fn open(dir: &Path, nodes: u8, before: bool) -> Result<NodesDir, String> {
        let check = async |again| {
            assert_eq!(again, before);
            Ok(())
        };
        NodesDir::open(dir, nodes, check).await
    }

    #[tokio::test]
    async fn a_directory_keeps_its_shape_and_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        assert!(Layout::check(&path, 1).is_ok() && Layout::check(&path, 3).is_ok());
        let taken = async |_| Err("a port".to_owned());
        let refused = NodesDir::open(&path, 3, taken).await.unwrap_err();
        assert_eq!((refused.as_str(), entries(dir.path())), ("a port", 0));
        let held = open(&path, 3, false).await.unwrap();
        assert_eq!(Layout::of(&path), Layout::Nodes(3));
        let late = async |_| panic!("the lock comes first");
        let second = NodesDir::open(&path, 3, late).await.unwrap_err();
        assert!(second.contains("in use") && second.contains("--data-dir"), "{second}");
        drop(held);
        fs::remove_dir(node_dir(&path, 1)).unwrap();
        drop(open(&path, 3, true).await.unwrap());
        assert!(node_dir(&path, 1).is_dir(), "a wiped node starts blank");
        assert!(Layout::check(&path, 1).unwrap_err().contains("--nodes 3"));
        assert!(open(&path, 5, true).await.unwrap_err().contains("--nodes 3"));
        assert_eq!(node_dirs(&path).len(), 3);
    }

    #[tokio::test]
    async fn what_is_not_a_quick_starts_is_left_alone() {
        let single = tempfile::tempdir().unwrap();
        fs::write(single.path().join(holdfast_node::MARKER), "x").unwrap();
        assert!(Layout::check(single.path(), 1).is_ok());
        let refused = open(single.path(), 3, false).await.unwrap_err();
        assert!(refused.contains("--nodes 1"), "{refused}");
        let foreign = tempfile::tempdir().unwrap();
        fs::write(foreign.path().join("notes.txt"), "mine").unwrap();
        let refused = open(foreign.path(), 3, false).await.unwrap_err();
        assert!(refused.contains("other files"), "{refused}");
        assert_eq!((entries(single.path()), entries(foreign.path())), (1, 1));
    }
}
