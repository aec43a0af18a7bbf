//! What the agent answers: HTTP/1.1, path by path.

mod body;
mod leases;
mod shared;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::super::baseline::{BaselineError, IdleState};
use super::super::bucket::{LeaseId, Refusal};
use super::wire::{GrantBody, GrantedBody, LearnBody, ProgressBody, StirBody, joules_of};
use super::{AgentError, JouleAgent, LocalAgent, Relearn, metrics};
use crate::units::Joules;
use body::{answer, busy, fail, read};
pub(super) use shared::Shared;
use shared::apart;

/// The port of the original.
pub const DEFAULT_PORT: u16 = 8787;
/// No request is larger.
const LARGEST_BODY: usize = 16 * 1024;
/// A client that sends nothing for so long is cut off.
pub(super) const SLOWEST_REQUEST: Duration = Duration::from_secs(10);
/// Records in a history, unless another number is asked for.
const USUAL_HISTORY: usize = 20;
/// The most records that one answer has.
pub(super) const LONGEST_HISTORY: usize = 1000;
/// The description of everything here.
const OPENAPI: &str = include_str!("../../../../schemas/agent.json");

/// Every path, and who may use it.
pub(super) fn router(shared: Shared) -> Router {
    let spending = Router::new()
        .route("/v1/take", post(leases::take))
        .route("/v1/settle", post(leases::settle))
        .route("/v1/close", post(leases::close))
        .route("/v1/forfeit", post(leases::forfeit))
        .route("/v1/renew", post(leases::renew))
        .route("/v1/abandon", post(leases::abandon))
        .route("/v1/missed", post(leases::missed))
        .route("/v1/grant", post(grant))
        .route("/v1/stir", post(stir))
        .route("/v1/baseline", post(learn))
        .layer(middleware::from_fn_with_state(shared.clone(), allow));
    Router::new()
        .route("/v1/sample", get(sample))
        .route("/v1/about", get(about))
        .route("/v1/bucket", get(bucket))
        .route("/v1/bucket/history", get(history))
        .route("/v1/baseline", get(baseline))
        .route("/v1/leases/{lease}", get(progress))
        .route("/v1/openapi.json", get(openapi))
        .route("/metrics", get(prometheus))
        .merge(spending)
        .method_not_allowed_fallback(async || {
            fail(
                StatusCode::METHOD_NOT_ALLOWED,
                "this page knows no such method",
            )
        })
        .fallback(async || {
            fail(
                StatusCode::NOT_FOUND,
                "there is no such path; GET /v1/openapi.json",
            )
        })
        .layer(middleware::from_fn(whole_body))
        .layer(middleware::from_fn_with_state(shared.clone(), at_home))
        .with_state(shared)
}

/// A page in somebody's browser must not reach a local agent under a name of its own.
async fn at_home(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or("");
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let is_literal = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_own_name = name.is_empty() || name.eq_ignore_ascii_case("localhost");
    if shared.is_local && !is_literal && !is_own_name {
        return fail(StatusCode::FORBIDDEN, "this agent serves its own machine");
    }
    next.run(request).await
}

/// Reads the body before anything else: a client that sends it drop by drop holds nothing up.
async fn whole_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let whole = tokio::time::timeout(SLOWEST_REQUEST, to_bytes(body, LARGEST_BODY)).await;
    match whole {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => fail(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body was cut off, or has more than {LARGEST_BODY} bytes"),
        ),
        Err(_) => fail(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    }
}

async fn allow(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let is_allowed = shared
        .token
        .as_ref()
        .is_none_or(|token| token.is_in(request.headers()));
    if is_allowed {
        next.run(request).await
    } else {
        fail(
            StatusCode::UNAUTHORIZED,
            "a token is needed: Authorization: Bearer ...",
        )
    }
}

async fn sample(State(shared): State<Shared>) -> Response {
    answer(shared.agent.sample())
}

async fn about(State(shared): State<Shared>) -> Response {
    answer(shared.agent.about())
}

async fn bucket(State(shared): State<Shared>) -> Response {
    answer(shared.agent.bucket())
}

async fn history(State(shared): State<Shared>, uri: Uri) -> Response {
    let asked = uri.query().unwrap_or_default();
    let limit = match asked.split_once('=') {
        _ if asked.is_empty() => Some(USUAL_HISTORY),
        Some(("limit", number)) => number.parse().ok(),
        _ => None,
    };
    match limit {
        Some(limit) if limit <= LONGEST_HISTORY => {
            answer(apart(move || shared.agent.history(limit)).await)
        }
        _ => fail(
            StatusCode::BAD_REQUEST,
            format!("the question must be ?limit=N, from 0 to {LONGEST_HISTORY}"),
        ),
    }
}

async fn baseline(State(shared): State<Shared>) -> Response {
    answer(
        shared
            .agent
            .frozen()
            .ok_or(AgentError::Baseline(BaselineError::Absent)),
    )
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn prometheus(State(shared): State<Shared>) -> Response {
    let agent = &shared.agent;
    let text = agent.sample().and_then(|sample| {
        let bucket = agent.bucket()?;
        let snapshot = agent.snapshot();
        Ok(metrics::render(agent.probes(), &snapshot, &sample, &bucket))
    });
    match text {
        Ok(text) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => answer::<()>(Err(error)),
    }
}

async fn progress(
    State(shared): State<Shared>,
    lease: Result<UrlPath<String>, PathRejection>,
) -> Response {
    let lease = lease.map_or_else(|_| String::new(), |UrlPath(lease)| lease);
    match lease.parse::<LeaseId>() {
        Ok(id) => answer(shared.agent.progress(&id).map(ProgressBody::from)),
        Err(error) => fail(StatusCode::BAD_REQUEST, error),
    }
}

async fn grant(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let joules = read::<GrantBody>(&headers, &body).map(|body| joules_of(&body.joules));
    let joules = match joules {
        Ok(Ok(joules)) if joules > Joules::ZERO => joules,
        Ok(Ok(joules)) => return answer::<()>(Err(Refusal::NotAnAmount(joules).into())),
        Ok(Err(error)) => return fail(StatusCode::BAD_REQUEST, error),
        Err(response) => return *response,
    };
    let granted = apart(move || {
        let granted_j = shared.agent.grant(joules)?;
        Ok(GrantedBody {
            ok: true,
            granted_j,
            remaining_j: shared.agent.bucket()?.level_joules,
        })
    });
    answer(granted.await)
}

async fn stir(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let seconds = match read::<StirBody>(&headers, &body) {
        Ok(body) => body.seconds,
        Err(response) => return *response,
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time <= Duration::from_secs(3600) => answer(
            shared
                .agent
                .stir(time)
                .map(|()| serde_json::json!({"ok": true})),
        ),
        _ => fail(
            StatusCode::BAD_REQUEST,
            "`seconds` must be between 0 and 3600",
        ),
    }
}

async fn learn(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let (state, anew) = match read::<LearnBody>(&headers, &body) {
        Ok(body) => (body.state, body.wanted()),
        Err(response) => return *response,
    };
    let Some(anew) = anew else {
        let what = "`anew` and `or_gross` exclude each other";
        return fail(StatusCode::BAD_REQUEST, what);
    };
    // Who hangs up does not end the learning, so waiting ones would pile up.
    let Ok(turn) = Arc::clone(&shared.learning).try_acquire_owned() else {
        return busy("a baseline is being learned");
    };
    let learned = apart(move || {
        let learned = learn_now(&shared.agent, state, anew);
        drop(turn);
        learned
    });
    answer(learned.await)
}

fn learn_now(
    agent: &LocalAgent,
    state: IdleState,
    anew: Relearn,
) -> Result<super::super::baseline::Baseline, AgentError> {
    agent.baseline(state, anew, &mut |_| ())
}
