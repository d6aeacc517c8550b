//! The handlers: each takes a request apart and passes it to the [`Service`]. What
//! stands in front of them is what `/openapi.json` says.

use crate::{
    Service,
    types::{
        AddDisk, AttachVolume, Changed, CreateVolume, DiskStatus, ErrorBody, ErrorCode,
        JoinCluster, NodeStatus, ResizeVolume, Status, VerifyReport, Version, VolumeStatus,
    },
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::de::DeserializeOwned;
use std::sync::Arc;

type Daemon = State<Arc<dyn Service>>;
type Said<T> = Result<Json<T>, ErrorBody>;

/// Every path of the API; [`crate::server`] serves it on a listener.
pub fn router(service: Arc<dyn Service>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(async || Json(crate::openapi())))
        .route("/v1/version", get(version))
        .route("/v1/status", get(status))
        .route("/v1/volumes", get(list_volumes).post(create_volume))
        .route("/v1/volumes/{name}", get(show_volume).delete(delete_volume))
        .route("/v1/volumes/{name}/resize", post(resize_volume))
        .route("/v1/volumes/{name}/attach", post(attach_volume))
        .route("/v1/volumes/{name}/detach", post(detach_volume))
        .route("/v1/volumes/{name}/verify", post(verify_volume))
        .route("/v1/nodes", get(list_nodes))
        .route("/v1/nodes/join", post(join_cluster))
        .route("/v1/nodes/{node}", delete(remove_node))
        .route("/v1/disks", get(list_disks).post(add_disk))
        .route("/v1/disks/{disk}", delete(remove_disk))
        .fallback(async || {
            let remedy = "see /openapi.json for what there is";
            ErrorBody::new(ErrorCode::NotFound, "there is no such path", remedy)
        })
        .method_not_allowed_fallback(async || {
            let remedy = "see /openapi.json for what there is";
            ErrorBody::new(ErrorCode::Invalid, "the path does not take this method", remedy)
        })
        .with_state(service)
}

impl IntoResponse for ErrorBody {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status());
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(self)).into_response()
    }
}

/// The body of a request; nothing is the same as `{}`. Unlike axum's own extractor it
/// wants no header and answers in the API's form.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ErrorBody> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the request's body cannot be understood: {error}");
        ErrorBody::new(ErrorCode::Invalid, message, "see /openapi.json for what it is to hold")
    })
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200)))]
pub(crate) async fn healthz() -> StatusCode {
    StatusCode::OK
}

/// The node is part of a cluster and serves.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200), (status = 503, body = ErrorBody)))]
pub(crate) async fn readyz(State(daemon): Daemon) -> Said<()> {
    daemon.ready().await.map(Json)
}

/// Which program answers.
#[utoipa::path(get, path = "/v1/version", tag = "cluster", responses((status = 200, body = Version)))]
pub(crate) async fn version(State(daemon): Daemon) -> Json<Version> {
    Json(daemon.version())
}

/// Cluster, nodes, disks and volumes, as the node that is asked sees them.
#[utoipa::path(get, path = "/v1/status", tag = "cluster",
    responses((status = 200, body = Status), (status = "default", body = ErrorBody)))]
pub(crate) async fn status(State(daemon): Daemon) -> Said<Status> {
    daemon.status().await.map(Json)
}

/// All volumes.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes",
    responses((status = 200, body = Vec<VolumeStatus>), (status = "default", body = ErrorBody)))]
pub(crate) async fn list_volumes(State(daemon): Daemon) -> Said<Vec<VolumeStatus>> {
    daemon.volumes().await.map(Json)
}

/// Creates a volume. Answers when a quorum of its replicas is ready.
#[utoipa::path(post, path = "/v1/volumes", tag = "volumes", request_body = CreateVolume,
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(crate) async fn create_volume(State(daemon): Daemon, body: Bytes) -> Said<Changed> {
    daemon.create_volume(parse(&body)?).await.map(Json)
}

/// One volume.
#[utoipa::path(get, path = "/v1/volumes/{name}", tag = "volumes", params(("name" = String, Path)),
    responses((status = 200, body = VolumeStatus), (status = "default", body = ErrorBody)))]
pub(crate) async fn show_volume(
    State(daemon): Daemon,
    Path(name): Path<String>,
) -> Said<VolumeStatus> {
    daemon.volume(name).await.map(Json)
}

/// Deletes a volume with all its data. Refused while it is attached.
#[utoipa::path(delete, path = "/v1/volumes/{name}", tag = "volumes", params(("name" = String, Path)),
    responses((status = 200), (status = "default", body = ErrorBody)))]
pub(crate) async fn delete_volume(State(daemon): Daemon, Path(name): Path<String>) -> Said<()> {
    daemon.delete_volume(name).await.map(Json)
}

/// Makes a volume larger. Clients see it when they connect again.
#[utoipa::path(post, path = "/v1/volumes/{name}/resize", tag = "volumes",
    params(("name" = String, Path)), request_body = ResizeVolume,
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(crate) async fn resize_volume(
    State(daemon): Daemon,
    Path(name): Path<String>,
    body: Bytes,
) -> Said<Changed> {
    daemon.resize_volume(name, parse(&body)?).await.map(Json)
}

/// Attaches a volume to a node, from another one if need be. Answers when it is served.
#[utoipa::path(post, path = "/v1/volumes/{name}/attach", tag = "volumes",
    params(("name" = String, Path)), request_body = AttachVolume,
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(crate) async fn attach_volume(
    State(daemon): Daemon,
    Path(name): Path<String>,
    body: Bytes,
) -> Said<Changed> {
    daemon.attach_volume(name, parse(&body)?).await.map(Json)
}

/// Detaches a volume. Answers when its engine has stopped.
#[utoipa::path(post, path = "/v1/volumes/{name}/detach", tag = "volumes",
    params(("name" = String, Path)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(crate) async fn detach_volume(
    State(daemon): Daemon,
    Path(name): Path<String>,
) -> Said<Changed> {
    daemon.detach_volume(name).await.map(Json)
}

/// Compares all replicas of a volume, presence and checksums, at one LSN. Answers when
/// they have been read to the end.
#[utoipa::path(post, path = "/v1/volumes/{name}/verify", tag = "volumes",
    params(("name" = String, Path)),
    responses((status = 200, body = VerifyReport), (status = "default", body = ErrorBody)))]
pub(crate) async fn verify_volume(
    State(daemon): Daemon,
    Path(name): Path<String>,
) -> Said<VerifyReport> {
    daemon.verify_volume(name).await.map(Json)
}

/// All nodes.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    responses((status = 200, body = Vec<NodeStatus>), (status = "default", body = ErrorBody)))]
pub(crate) async fn list_nodes(State(daemon): Daemon) -> Said<Vec<NodeStatus>> {
    daemon.nodes().await.map(Json)
}

/// The node that is asked joins a cluster.
#[utoipa::path(post, path = "/v1/nodes/join", tag = "nodes", request_body = JoinCluster,
    responses((status = 200, body = Vec<NodeStatus>), (status = "default", body = ErrorBody)))]
pub(crate) async fn join_cluster(State(daemon): Daemon, body: Bytes) -> Said<Vec<NodeStatus>> {
    daemon.join(parse(&body)?).await.map(Json)
}

/// Removes a node from the cluster, by name or id.
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "nodes",
    params(("node" = String, Path), ("force" = Option<bool>, Query, description = "the node is gone for good")),
    responses((status = 200), (status = "default", body = ErrorBody)))]
pub(crate) async fn remove_node(
    State(daemon): Daemon,
    Path(node): Path<String>,
    RawQuery(query): RawQuery,
) -> Said<()> {
    let force = match query.as_deref() {
        None | Some("" | "force=false") => false,
        Some("force=true" | "force" | "force=") => true,
        Some(other) => {
            let message = format!("{other:?} is no query of this path");
            return Err(ErrorBody::new(ErrorCode::Invalid, message, "give force=true or nothing"));
        }
    };
    daemon.remove_node(node, force).await.map(Json)
}

/// All disks.
#[utoipa::path(get, path = "/v1/disks", tag = "disks",
    responses((status = 200, body = Vec<DiskStatus>), (status = "default", body = ErrorBody)))]
pub(crate) async fn list_disks(State(daemon): Daemon) -> Said<Vec<DiskStatus>> {
    daemon.disks().await.map(Json)
}

/// The node that is asked takes a disk into use; a blank one is formatted.
#[utoipa::path(post, path = "/v1/disks", tag = "disks", request_body = AddDisk,
    responses((status = 200, body = DiskStatus), (status = "default", body = ErrorBody)))]
pub(crate) async fn add_disk(State(daemon): Daemon, body: Bytes) -> Said<DiskStatus> {
    daemon.add_disk(parse(&body)?).await.map(Json)
}

/// Takes a disk that holds no replica out of use.
#[utoipa::path(delete, path = "/v1/disks/{disk}", tag = "disks", params(("disk" = String, Path)),
    responses((status = 200), (status = "default", body = ErrorBody)))]
pub(crate) async fn remove_disk(State(daemon): Daemon, Path(disk): Path<String>) -> Said<()> {
    daemon.remove_disk(disk).await.map(Json)
}
