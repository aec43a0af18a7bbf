//! The requests about leases.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};

use super::super::super::bucket::{Closed, LeaseId, Refusal, Take};
use super::super::wire::{
    AbandonedBody, ClosedBody, LeaseBody, MeasuredBody, MissedBody, RenewBody, TakeBody, TakenBody,
    joules_of,
};
use super::super::{AgentError, JouleAgent, LocalAgent};
use super::body::{answer, fail, read};
use super::shared::{Shared, apart};
use crate::clock::Timestamp;
use crate::id::new_id;
use crate::units::Joules;

/// A lease of a client that says nothing else.
const DEFAULT_TTL_SECONDS: f64 = 3600.0;
const LONGEST_PURPOSE: usize = 200;

pub(super) async fn take(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
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
        ttl: ttl_of(seconds)?,
    })
}

fn ttl_of(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("`ttl_s` must be a number of seconds, not {seconds}"))
}

pub(super) async fn renew(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match read::<RenewBody>(&headers, &body).map(|body| renewal_of(&body)) {
        Ok(Ok((id, ttl))) => {
            let renewed = apart(move || shared.agent.renew(&id, ttl)).await;
            answer(renewed.map(|()| serde_json::json!({"ok": true})))
        }
        Ok(Err(error)) => fail(StatusCode::BAD_REQUEST, error),
        Err(response) => *response,
    }
}

fn renewal_of(body: &RenewBody) -> Result<(LeaseId, Duration), String> {
    Ok((body.lease.parse()?, ttl_of(body.ttl_s)?))
}

pub(super) async fn abandon(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let id = match lease_of(&headers, &body) {
        Ok((id, _)) => id,
        Err(response) => return *response,
    };
    let abandoned = apart(move || {
        let abandoned = shared.agent.abandon_for_client(&id)?;
        let remaining_j = shared.agent.bucket()?.level_joules;
        Ok(AbandonedBody::of(&id, &abandoned, remaining_j))
    });
    answer(abandoned.await)
}

pub(super) async fn missed(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let missed = read::<MissedBody>(&headers, &body).map(|body| missed_of(&body));
    match missed {
        Ok(Ok((id, reserved, charged))) => {
            end(shared, move |agent| {
                agent.charge_missed(&id, reserved, charged)
            })
            .await
        }
        Ok(Err(error)) => fail(StatusCode::BAD_REQUEST, error),
        Err(response) => *response,
    }
}

fn missed_of(body: &MissedBody) -> Result<(LeaseId, Joules, Joules), String> {
    let [reserved, charged] = [&body.reserved, &body.joules].map(joules_of);
    let (reserved, charged) = (reserved?, charged?);
    if reserved < Joules::ZERO || charged < Joules::ZERO {
        return Err("`reserved` or `joules` is below zero".into());
    }
    Ok((body.lease.parse()?, reserved, charged))
}

pub(super) async fn close(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let id = match lease_of(&headers, &body) {
        Ok((id, _)) => id,
        Err(response) => return *response,
    };
    let measured = apart(move || shared.agent.close(&id)).await;
    answer(measured.map(MeasuredBody::from))
}

pub(super) async fn settle(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match lease_of(&headers, &body) {
        Ok((id, stated)) => end(shared, move |agent| agent.settle(&id, stated)).await,
        Err(response) => *response,
    }
}

pub(super) async fn forfeit(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
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
    answer(
        result
            .await
            .map(|(closed, remaining_j)| ClosedBody::of(&closed, remaining_j)),
    )
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
