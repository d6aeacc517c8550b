//! What the metadata group says, in the API's form: cause and remedy, names instead of ids.

use crate::{member::Member, node::name_of};
use holdfast_api::types::{ErrorBody, ErrorCode};
use holdfast_meta::{ProposeError, Rejected, Volume, VolumeName};
use holdfast_types::NodeId;

/// Why a proposal came to nothing.
pub(super) fn refused(member: &Member, error: ProposeError) -> ErrorBody {
    match error {
        ProposeError::Rejected(rejected) => rejection(member, rejected),
        ProposeError::Unavailable(cause) => ErrorBody::new(
            ErrorCode::Unavailable,
            format!("the metadata group cannot agree on a change now: {cause}"),
            "nothing was changed, and attached volumes are served all the same; start its voters \
             again until a majority of them runs (holdfast node list)",
        ),
        ProposeError::Unknown => ErrorBody::new(
            ErrorCode::Timeout,
            "the metadata group did not answer in time; the change may have been made",
            "look at the state, then try again",
        ),
    }
}

fn rejection(member: &Member, rejected: Rejected) -> ErrorBody {
    let (code, remedy) = match &rejected {
        Rejected::Attached(node) => return attached(&name_of(member, *node)),
        Rejected::HoldsAttachment(volume) => {
            return ErrorBody::new(
                ErrorCode::Conflict,
                format!("volume {volume} is attached to the node"),
                "attach it elsewhere, or detach it, first",
            );
        }
        Rejected::NoVolume(_) | Rejected::NoNode(_) | Rejected::NoDisk(_) => {
            (ErrorCode::NotFound, "")
        }
        Rejected::Geometry(_) | Rejected::Text(_) => (ErrorCode::Invalid, ""),
        Rejected::Members(_) => (ErrorCode::Invalid, "ask for another number of replicas"),
        Rejected::EpochMoved { .. } | Rejected::GenerationMoved { .. } => {
            (ErrorCode::Conflict, "try again")
        }
        _ => (ErrorCode::Conflict, ""),
    };
    ErrorBody::new(code, rejected.to_string(), remedy)
}

/// The volume is in use on that node.
pub(super) fn attached(node: &str) -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Conflict,
        format!("the volume is attached to node {node}"),
        "detach it first (holdfast volume detach)",
    )
}

/// The volume of that name.
pub(super) fn volume(member: &Member, name: &str) -> Result<Volume, ErrorBody> {
    let parsed: VolumeName =
        name.parse().map_err(|error| ErrorBody::new(ErrorCode::Invalid, format!("{error}"), ""))?;
    member.catalogue().by_name(&parsed).cloned().ok_or_else(|| no_volume(name))
}

/// There is none of that name.
pub(super) fn no_volume(name: &str) -> ErrorBody {
    let remedy = "see `holdfast volume list`";
    ErrorBody::new(ErrorCode::NotFound, format!("there is no volume {name}"), remedy)
}

/// The node of that name or id; none is this one.
pub(super) fn node(member: &Member, text: Option<&str>) -> Result<NodeId, ErrorBody> {
    let Some(text) = text else { return Ok(member.me.id) };
    let catalogue = member.catalogue();
    let by_id = || text.parse().ok().and_then(|id| catalogue.node(id));
    match catalogue.node_by_name(text).or_else(by_id) {
        Some(node) => Ok(node.id),
        None => {
            let message = format!("there is no node {text}");
            Err(ErrorBody::new(ErrorCode::NotFound, message, "see `holdfast node list`"))
        }
    }
}
