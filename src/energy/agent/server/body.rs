//! What is read from requests and written into answers: JSON, and a status for each error.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::AgentError;
use super::super::wire::ErrorBody;
use crate::energy::bucket::Refusal;

pub(super) fn fail(status: StatusCode, error: impl Into<String>) -> Response {
    failed(status, error.into(), None)
}

/// It is at something that takes a moment.
pub(super) fn busy(error: &str) -> Response {
    let hint = "try again in some seconds";
    failed(
        StatusCode::SERVICE_UNAVAILABLE,
        error.into(),
        Some(hint.into()),
    )
}

fn failed(status: StatusCode, error: String, hint: Option<String>) -> Response {
    let body = ErrorBody {
        ok: false,
        error,
        hint,
    };
    (status, Json(body)).into_response()
}

pub(super) fn answer<T: Serialize>(result: Result<T, AgentError>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(error) => failed(status_of(&error), error.to_string(), error.hint()),
    }
}

fn status_of(error: &AgentError) -> StatusCode {
    match error {
        AgentError::Refused(refusal) => match refusal {
            Refusal::Short(_) | Refusal::IdReused(_) | Refusal::Ended(_) => StatusCode::CONFLICT,
            Refusal::NotAnAmount(_) | Refusal::BadTtl => StatusCode::BAD_REQUEST,
            Refusal::NoLease(_) => StatusCode::NOT_FOUND,
            Refusal::TooManyLeases(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
        AgentError::Unmeasured(_) => StatusCode::GONE,
        AgentError::Baseline(_) | AgentError::Stale(_) | AgentError::Bucket(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Reads a request: JSON, named as such, so that no web form can send it.
pub(super) fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<T, Box<Response>> {
    let kind = headers.get(header::CONTENT_TYPE);
    let is_json = kind
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.split(';').next().unwrap_or("").trim() == "application/json");
    if !is_json {
        let error = "the request must have the content type application/json";
        return Err(Box::new(fail(StatusCode::UNSUPPORTED_MEDIA_TYPE, error)));
    }
    let bad = |error: String| Box::new(fail(StatusCode::BAD_REQUEST, error));
    // serde would also take a list of the fields' values.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("the request must be a JSON object".into()));
    }
    serde_json::from_slice(body).map_err(|error| bad(error.to_string()))
}
