//! What the handshake may offer: the volumes that this node serves right now.

use holdfast_block::Geometry;

/// One volume as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its canonical name: UTF-8, no NUL, at most 4096 bytes.
    pub name: String,
    /// For people; may be empty. At most 4096 bytes.
    pub description: String,
    /// Size and constraints.
    pub geometry: Geometry,
}

/// The directory of exports, asked during handshakes. Answers come from memory:
/// a handshake never waits for the cluster.
pub trait Exports: Send + Sync {
    /// All exports that may be listed, in the order to list them.
    fn list(&self) -> Vec<Export>;

    /// The export called `name`. The empty name means the default export, which
    /// exists if exactly one export does.
    fn find(&self, name: &str) -> Option<Export> {
        let mut all = self.list();
        if name.is_empty() {
            return if all.len() == 1 { all.pop() } else { None };
        }
        all.into_iter().find(|export| export.name == name)
    }
}
