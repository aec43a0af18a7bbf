//! What the agent answers: HTTP/1.1, path by path.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::super::baseline::{BaselineError, IdleState};
use super::super::bucket::{Closed, LeaseId, Refusal, Take};
use super::listen::Listen;
use super::token::Token;
use super::wire::{
    ClosedBody, ErrorBody, GrantBody, GrantedBody, LearnBody, LeaseBody, ProgressBody, StirBody,
    TakeBody, TakenBody, joules_of,
};
use super::{AgentError, JouleAgent, LocalAgent, Relearn, metrics};
use crate::clock::Timestamp;
use crate::id::new_id;
use crate::units::Joules;

/// The port of the original.
pub const DEFAULT_PORT: u16 = 8787;
/// No request is larger.
const LARGEST_BODY: usize = 16 * 1024;
/// A client that sends nothing for so long is cut off.
pub(super) const SLOWEST_REQUEST: Duration = Duration::from_secs(10);
/// A lease of a client that says nothing else.
const DEFAULT_TTL_SECONDS: f64 = 3600.0;
const LONGEST_PURPOSE: usize = 200;
/// Records in a history, unless another number is asked for.
const USUAL_HISTORY: usize = 20;
/// The most records that one answer has.
pub(super) const LONGEST_HISTORY: usize = 1000;
/// The description of everything here.
const OPENAPI: &str = include_str!("../../../schemas/agent.json");

#[derive(Clone)]
pub(super) struct Shared {
    agent: Arc<LocalAgent>,
    token: Option<Token>,
    is_local: bool,
    /// One baseline is learned at a time, however many ask.
    learning: Arc<Semaphore>,
}

impl Shared {
    /// What all requests share.
    pub fn new(agent: Arc<LocalAgent>, token: Option<Token>, listen: &Listen) -> Self {
        Self {
            agent,
            token,
            is_local: !matches!(listen, Listen::Tcp(address) if !address.ip().is_loopback()),
            learning: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Every path, and who may use it.
pub(super) fn router(shared: Shared) -> Router {
    let spending = Router::new()
        .route("/v1/take", post(take))
        .route("/v1/settle", post(settle))
        .route("/v1/close", post(close))
        .route("/v1/forfeit", post(forfeit))
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

fn fail(status: StatusCode, error: impl Into<String>) -> Response {
    let body = ErrorBody {
        ok: false,
        error: error.into(),
        hint: None,
    };
    (status, Json(body)).into_response()
}

fn answer<T: Serialize>(result: Result<T, AgentError>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(error) => {
            let body = ErrorBody {
                ok: false,
                error: error.to_string(),
                hint: error.hint(),
            };
            (status_of(&error), Json(body)).into_response()
        }
    }
}

fn status_of(error: &AgentError) -> StatusCode {
    match error {
        AgentError::Refused(refusal) => match refusal {
            Refusal::Short(_) | Refusal::IdReused(_) => StatusCode::CONFLICT,
            Refusal::NotAnAmount(_) | Refusal::BadTtl => StatusCode::BAD_REQUEST,
            Refusal::NoLease(_) => StatusCode::NOT_FOUND,
            Refusal::TooManyLeases(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
        AgentError::Unmeasured(_) => StatusCode::NOT_FOUND,
        AgentError::Baseline(_) | AgentError::Stale(_) | AgentError::Bucket(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Reads a request: JSON, named as such, so that no web form can send it.
fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Box<Response>> {
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

/// Runs what waits for the disk or the meter where it holds up nobody.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(AgentError::Meter(io::Error::other(error))))
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

async fn take(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let asked = match read::<TakeBody>(&headers, &body).map(|body| take_of(&body)) {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => return fail(StatusCode::BAD_REQUEST, error),
        Err(response) => return *response,
    };
    let result = apart(move || shared.agent.take(&asked)).await;
    match result {
        Ok(taken) => Json(TakenBody {
            ok: true,
            remaining_j: taken.level.as_f64(),
            lease: Some(taken.id.to_string()),
            granted_j: Some(taken.reserved.as_f64()),
            ..TakenBody::default()
        })
        .into_response(),
        Err(AgentError::Refused(Refusal::Short(short))) => {
            let error = Refusal::Short(short).to_string();
            let body = TakenBody::short(&short, error);
            (StatusCode::CONFLICT, Json(body)).into_response()
        }
        Err(error) => answer::<()>(Err(error)),
    }
}

fn take_of(body: &TakeBody) -> Result<Take, String> {
    let seconds = body.ttl_s.unwrap_or(DEFAULT_TTL_SECONDS);
    let purpose = body.purpose.clone().unwrap_or_default();
    if purpose.chars().count() > LONGEST_PURPOSE {
        return Err(format!(
            "`purpose` has more than {LONGEST_PURPOSE} characters"
        ));
    }
    let id = match &body.id {
        Some(id) => id.clone(),
        None => new_id(Timestamp::now()).map_err(|error| error.to_string())?,
    };
    Ok(Take {
        id: id.parse()?,
        joules: joules_of(&body.joules)?,
        purpose,
        ttl: Duration::try_from_secs_f64(seconds)
            .map_err(|_| format!("`ttl_s` must be a number of seconds, not {seconds}"))?,
    })
}

async fn close(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let id = match lease_of(&headers, &body) {
        Ok((id, _)) => id,
        Err(response) => return *response,
    };
    let measured = apart(move || shared.agent.close(&id)).await;
    answer(measured.map(super::wire::MeasuredBody::from))
}

async fn settle(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match lease_of(&headers, &body) {
        Ok((id, stated)) => end(shared, move |agent| agent.settle(&id, stated)).await,
        Err(response) => *response,
    }
}

async fn forfeit(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match lease_of(&headers, &body) {
        Ok((id, _)) => end(shared, move |agent| agent.forfeit(&id)).await,
        Err(response) => *response,
    }
}

async fn end(
    shared: Shared,
    end: impl FnOnce(&LocalAgent) -> Result<Closed, AgentError> + Send + 'static,
) -> Response {
    let result = apart(move || {
        let closed = end(&shared.agent)?;
        Ok((closed, shared.agent.bucket()?.level_joules))
    });
    answer(result.await.map(|(closed, remaining_j)| ClosedBody {
        ok: true,
        lease: closed.id.to_string(),
        reserved_j: closed.reserved,
        charged_j: closed.charged,
        remaining_j,
    }))
}

fn lease_of(headers: &HeaderMap, body: &Bytes) -> Result<(LeaseId, Option<Joules>), Box<Response>> {
    let body: LeaseBody = read(headers, body)?;
    let bad = |error: String| Box::new(fail(StatusCode::BAD_REQUEST, error));
    let id = body.lease.parse().map_err(bad)?;
    let stated = body.joules.as_ref().map(joules_of).transpose();
    let stated = stated.map_err(bad)?;
    if stated.is_some_and(|joules| joules < Joules::ZERO) {
        return Err(bad("`joules` is below zero".into()));
    }
    Ok((id, stated))
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
        return fail(
            StatusCode::SERVICE_UNAVAILABLE,
            "a baseline is being learned",
        );
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
