//! Which path answers what.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::page;
use crate::telemetry::Telemetry;

/// GET and HEAD on five paths; 405 for other methods on them, 404 for everything else.
pub(super) fn router(telemetry: Arc<Telemetry>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status.json", get(status))
        .fallback(missing)
        .layer(map_response(harden))
        .with_state(telemetry)
}

type Shared = State<Arc<Telemetry>>;

async fn livez(State(telemetry): Shared) -> Response {
    probe(telemetry.liveness())
}

async fn readyz(State(telemetry): Shared) -> Response {
    probe(telemetry.snapshot().readiness())
}

async fn metrics(State(telemetry): Shared) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], telemetry.scrape()).into_response()
}

async fn status(State(telemetry): Shared) -> Response {
    axum::Json(telemetry.snapshot()).into_response()
}

async fn root() -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], page::PAGE).into_response()
}

async fn missing() -> Response {
    let paths = "not found; there are / /livez /readyz /metrics /status.json\n";
    (StatusCode::NOT_FOUND, paths).into_response()
}

/// 200 `ok`, or 503 with the reason.
fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// Headers of every answer: never stored, never framed, and nothing runs but the page's own script.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, page::POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
