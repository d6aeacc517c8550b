//! `/openapi.json`: the API in OpenAPI 3.1, from the handlers and the types themselves.

use crate::routes;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "Manages a Holdfast cluster. Any node answers. There is no authentication: \
                       whoever reaches the address may do everything."
    ),
    paths(
        routes::healthz,
        routes::readyz,
        routes::version,
        routes::status,
        routes::list_volumes,
        routes::create_volume,
        routes::show_volume,
        routes::delete_volume,
        routes::resize_volume,
        routes::attach_volume,
        routes::detach_volume,
        routes::verify_volume,
        routes::list_nodes,
        routes::join_cluster,
        routes::remove_node,
        routes::list_disks,
        routes::add_disk,
        routes::remove_disk,
    )
)]
struct Document;

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
