//! The data directory: whose it is, which format it has, and that one process
//! at a time uses it.
//!
//! A directory is ours when it holds the file `holdfast`, whose first line says
//! `holdfast data format N` and whose second line is the node's id. It is written
//! last when a directory is made, atomically, so a half-made one is still empty
//! to the next start. A directory with other things in it is left alone.

use crate::NodeError;
use holdfast_io::{DirLock, crashsafe, dirlock::LOCK_FILE};
use holdfast_types::NodeId;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Format of the directory as a whole; its parts carry versions of their own.
/// 1 was a node by itself, whose catalogue was one file.
pub const FORMAT_VERSION: u32 = 2;
/// The file that says whose directory it is.
pub const MARKER: &str = "holdfast";
const MARKER_START: &str = "holdfast data format ";
/// What a start that did not finish may have left behind.
const LEFTOVERS: [&str; 4] = [LOCK_FILE, "holdfast.new", "disk", "lost+found"];
/// The metadata group's part of it.
const META: &str = "meta";

/// An open, locked data directory.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    node: NodeId,
    _lock: DirLock,
}

impl DataDir {
    /// Opens the directory, making it if there is none, and locks it.
    pub fn open_or_create(path: &Path) -> Result<Self, NodeError> {
        let cannot = |source| NodeError::DirectoryAccess { path: path.to_owned(), source };
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap_or(path)).map_err(cannot)?;
            crashsafe::create_dir(path).map_err(cannot)?;
        }
        // Whose it is comes before the lock: a foreign directory gets no lock file.
        let marker = read_marker(path)?;
        if marker.is_none() {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        let node = match marker {
            Some(node) => node,
            None => match read_marker(path)? {
                Some(node) => node,
                None => create(path).map_err(cannot)?,
            },
        };
        Ok(Self { path: path.to_owned(), node, _lock: lock })
    }

    /// Opens a directory that must exist, and locks it: for tools on a stopped node.
    pub fn open_existing(path: &Path) -> Result<Self, NodeError> {
        let Some(node) = read_marker(path)? else {
            return Err(NodeError::NoDirectory { path: path.to_owned() });
        };
        Ok(Self { path: path.to_owned(), node, _lock: lock(path)? })
    }

    /// Gives the node another id when the metadata group's state is not (any more) there:
    /// what a node has voted for and cannot remember, it must never vote on again.
    pub fn renew_if_forgetful(&mut self) -> Result<(), NodeError> {
        let meta = self.meta();
        let cannot = |source| NodeError::DirectoryAccess { path: meta.clone(), source };
        match fs::read_dir(&meta).map(|mut entries| entries.next()) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(cannot(source)),
        }
        self.node = create(&self.path).map_err(cannot)?;
        Ok(())
    }

    /// Where the metadata group keeps its state.
    #[must_use]
    pub fn meta(&self) -> PathBuf {
        self.join(META)
    }

    /// The node whose data this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// A file or directory in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn lock(path: &Path) -> Result<DirLock, NodeError> {
    DirLock::acquire(path).map_err(|source| match source.kind() {
        io::ErrorKind::ResourceBusy => NodeError::InUse(source),
        _ => NodeError::DirectoryAccess { path: path.to_owned(), source },
    })
}

fn read_marker(path: &Path) -> Result<Option<NodeId>, NodeError> {
    let text = match fs::read(path.join(MARKER)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(NodeError::DirectoryAccess { path: path.to_owned(), source }),
    };
    let foreign = || NodeError::Foreign { path: path.to_owned() };
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix(MARKER_START));
    let version: u32 = version.and_then(|v| v.trim().parse().ok()).ok_or_else(foreign)?;
    if version > FORMAT_VERSION {
        return Err(NodeError::NewerFormat { path: path.to_owned(), found: version });
    }
    if version < FORMAT_VERSION {
        return Err(NodeError::OlderFormat { path: path.to_owned(), found: version });
    }
    let node = lines.next().and_then(|line| line.trim().parse().ok());
    node.map(Some).ok_or_else(foreign)
}

fn refuse_foreign(path: &Path) -> Result<(), NodeError> {
    let cannot = |source| NodeError::DirectoryAccess { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        if !LEFTOVERS.iter().any(|left| name == *left) {
            return Err(NodeError::Foreign { path: path.to_owned() });
        }
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<NodeId> {
    let node = NodeId::random();
    let text = format!("{MARKER_START}{FORMAT_VERSION}\n{node}\n");
    crashsafe::atomic_write(&path.join(MARKER), text.as_bytes())?;
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_node_and_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let first = DataDir::open_or_create(&path).unwrap();
        let node = first.node();
        let second = DataDir::open_or_create(&path).unwrap_err();
        assert!(matches!(second, NodeError::InUse { .. }), "{second}");
        drop(first);
        assert_eq!(DataDir::open_or_create(&path).unwrap().node(), node);
        assert_eq!(DataDir::open_existing(&path).unwrap().node(), node);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let error = DataDir::open_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, NodeError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
    }

    #[test]
    fn a_node_that_forgot_its_votes_is_another_node() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataDir::open_or_create(dir.path()).unwrap();
        let first = data.node();
        data.renew_if_forgetful().unwrap();
        let second = data.node();
        assert_ne!(first, second);
        fs::create_dir(data.meta()).unwrap();
        data.renew_if_forgetful().unwrap();
        let third = data.node();
        assert_ne!(second, third, "an empty directory remembers nothing");
        fs::write(data.meta().join("store"), "votes").unwrap();
        data.renew_if_forgetful().unwrap();
        assert_eq!(data.node(), third);
        drop(data);
        assert_eq!(DataDir::open_or_create(dir.path()).unwrap().node(), third);
    }

    #[test]
    fn an_older_format_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), "holdfast data format 1\nwhatever\n").unwrap();
        let error = DataDir::open_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, NodeError::OlderFormat { found: 1, .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_format_is_named_and_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), "holdfast data format 9\nwhatever\n").unwrap();
        let error = DataDir::open_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, NodeError::NewerFormat { found: 9, .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let absent = DataDir::open_existing(&dir.path().join("none")).unwrap_err();
        assert!(matches!(absent, NodeError::NoDirectory { .. }), "{absent}");
    }
}
