//! Why a store cannot be laid out or opened.

use holdfast_io::DiskError;

/// Why a disk cannot be formatted, opened or checked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No superblock, or only the beginnings of an interrupted format.
    #[error("no Holdfast superblock here; format the disk, or check the path")]
    NotFormatted,
    /// Formatted already.
    #[error("the disk already holds a Holdfast store; give an empty one")]
    AlreadyFormatted,
    /// Holds data of something else, which a format must not destroy.
    #[error("{0}; give an empty directory or a device whose first 8 KiB are zero")]
    Foreign(String),
    /// A later version wrote it.
    #[error(
        "on-disk format {found} is newer than {supported}, which this version understands; upgrade holdfast"
    )]
    NewerFormat {
        /// On disk.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Both superblocks are damaged, or what they point to is.
    #[error("the store is damaged: {0}; restore it from another replica")]
    Damaged(String),
    /// Impossible options.
    #[error("{0}")]
    Options(String),
    /// Too small for the layout asked for.
    #[error("the disk has {available} bytes; at least {needed} are needed")]
    TooSmall {
        /// Bytes there.
        available: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// A device operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Opening a file failed.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StoreError {
    pub(super) fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}
