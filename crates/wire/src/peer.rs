//! Between nodes: the greeting that opens every connection, and the leases that a
//! pair of nodes renews for all of its volumes at once.

use holdfast_types::{ClusterId, Epoch, NodeId, ReplicaId, VolumeId};
use serde::{Deserialize, Serialize};

/// Version of everything that passes between nodes; the greeting carries it.
pub const PROTOCOL_VERSION: u16 = 1;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The metadata group's messages, and what a node without a cluster asks.
    Meta,
    /// Leases and heartbeats: the one who connects is the holder.
    Pair,
    /// A replica's stream: [`crate::ToReplica`] there, [`crate::FromReplica`] back.
    Stream {
        /// The volume.
        volume: VolumeId,
        /// Which copy of it.
        replica: ReplicaId,
    },
    /// Catch-up: the one who connects asks, see [`crate::catchup`].
    CatchUp {
        /// The volume.
        volume: VolumeId,
        /// The copy that is asked.
        replica: ReplicaId,
    },
}

/// First frame of the one who connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u16,
    /// The sender's cluster; `None` before it has one (then only [`Purpose::Meta`]).
    pub cluster: Option<ClusterId>,
    /// The sender.
    pub from: NodeId,
    /// Whom it takes the other for; `None` when it knows only the address.
    pub to: Option<NodeId>,
    /// What for.
    pub purpose: Purpose,
}

/// First frame back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// Go on.
    Accepted {
        /// Who answers.
        node: NodeId,
    },
    /// No; the connection closes.
    Refused {
        /// Cause and remedy.
        reason: String,
    },
}

/// Holder to granter: extend my leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Counts the holder's renewals on this connection.
    pub seq: u64,
    /// Fenced epochs that the holder has been told of and has acted upon.
    pub confirmed: Vec<(VolumeId, Epoch)>,
}

/// Granter to holder: for every volume except those listed, no engine of another
/// node is promised anything for `lease_ms` from the receipt of the renewal on,
/// or it is told to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The renewal that is answered.
    pub seq: u64,
    /// Length of the lease.
    pub lease_ms: u64,
    /// Volumes that were fenced off since, with the epoch promised to someone else.
    /// Listed until confirmed; a grant never extends them.
    pub fenced: Vec<(VolumeId, Epoch)>,
}
