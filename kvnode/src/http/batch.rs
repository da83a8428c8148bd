//! `POST /batch`: many ops in one request. Understood whole or not at all; with `?atomic` done whole or not at all.
//! As frames, or as lines of JSON; the answer comes in the form of the request.

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use kvclient::wire::{
    MAX_BATCH_BYTES,
    batch::{Ack, Op, OpResult, RequestId, decode_ops, encode_results},
    content_type,
    error::ErrorCode,
    header,
    query::Query,
};

use super::{
    admit, answer, awake, body,
    lines::{decode_lines, encode_lines},
    request,
    request::BadRequest,
};
use crate::{
    access::Caller,
    atomic,
    commit::{AtomicAnswer, named},
    service::Service,
};

/// Does the ops of a batch and answers each.
pub(super) async fn batch(
    request: HttpRequest,
    payload: &mut web::Payload,
    service: web::Data<Service>,
    caller: Caller,
) -> HttpResponse {
    let asked = match Asked::of(&request) {
        Ok(asked) => asked,
        Err(error) => return answer::refused_write(error, &service),
    };
    let body = match body::read(&service, &request, payload, MAX_BATCH_BYTES).await {
        Ok(body) => body,
        Err(error) => return answer::refused_write(error, &service),
    };
    let (ops, id) = match asked.ops(body.bytes.clone()) {
        Ok(understood) => understood,
        Err(error) => return answer::refused_write(error, &service),
    };
    service.metrics.saw_batch(ops.len());
    let done = match asked.whole {
        Whole::No => Ok(each(&service, ops, &caller).await),
        Whole::Atomic => whole(&service, ops, id, &caller).await,
    };
    let results = match done {
        Ok(results) => results,
        Err(refusal) => return answer::op(&request, refusal, &service),
    };
    for error in results.iter().filter_map(|result| result.error.as_ref()) {
        service.metrics.refusals.add(error.code);
    }
    let mut answer = answer::data(200, &service);
    answer.content_type(asked.form.content_type());
    answer.body(match asked.form {
        Form::Frames => encode_results(results.iter()),
        Form::Lines => encode_lines(&results),
    })
}

/// Does the ops that their caller may do; the others are refused, each by itself.
async fn each(service: &Service, ops: Vec<Op>, caller: &Caller) -> Vec<OpResult> {
    if caller.may_do_all_ops() {
        return awake::execute(service, ops).await;
    }
    let refusals: Vec<_> = ops.iter().map(|op| admit::refused_op(caller, op)).collect();
    let allowed = ops.into_iter().zip(&refusals);
    let allowed = allowed.filter(|(_, refusal)| refusal.is_none());
    let mut results = awake::execute(service, allowed.map(|(op, _)| op).collect())
        .await
        .into_iter();
    let result = |refusal: Option<OpResult>| refusal.or_else(|| results.next());
    refusals
        .into_iter()
        .map(result)
        .map(Option::unwrap_or_default)
        .collect()
}

/// Does all ops or none: none, too, if one of them is not for their caller.
async fn whole(
    service: &Service,
    ops: Vec<Op>,
    id: Option<RequestId>,
    caller: &Caller,
) -> AtomicAnswer {
    let refused = |(at, op)| {
        let refusal = admit::refused_op(caller, op)?;
        Some(named(at, op, refusal))
    };
    match ops.iter().enumerate().find_map(refused) {
        Some(refusal) => Err(refusal),
        None => atomic::execute(service, ops, id).await,
    }
}

/// What stands beside the body.
struct Asked {
    form: Form,
    whole: Whole,
    /// `Kv-Request-Id`, for an atomic batch.
    id: Option<RequestId>,
    /// `Kv-Ack`, for writes that do not say it themselves.
    ack: Option<Ack>,
}

/// How ops and results are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Frames,
    Lines,
}

impl Form {
    fn of(request: &HttpRequest) -> Result<Self, BadRequest> {
        let given = request::text(request, "content-type")?.unwrap_or_default();
        // Parameters such as a charset change nothing.
        let given = given.split(';').next().unwrap_or_default().trim_end();
        [Self::Frames, Self::Lines]
            .into_iter()
            .find(|form| given.eq_ignore_ascii_case(form.content_type()))
            .ok_or_else(|| {
                let message = format!(
                    "a batch is {} (one JSON object a line) or {}, said in Content-Type; nothing was done",
                    content_type::NDJSON,
                    content_type::FRAMES
                );
                BadRequest::new(ErrorCode::UnsupportedMediaType, message)
            })
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Frames => content_type::FRAMES,
            Self::Lines => content_type::NDJSON,
        }
    }
}

/// Whether ops are done each by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    No,
    Atomic,
}

impl Asked {
    fn of(request: &HttpRequest) -> Result<Self, BadRequest> {
        let query = Query::parse(request.uri().query().unwrap_or_default(), &["atomic"])?;
        let whole = match query.flag("atomic")? {
            true => Whole::Atomic,
            false => Whole::No,
        };
        let id = request::request_id(request)?;
        if id.is_some() && whole == Whole::No {
            let message = format!(
                "{} goes with ?atomic; otherwise each op has a request id of its own. Nothing was done",
                header::REQUEST_ID
            );
            return Err(BadRequest::new(ErrorCode::BadParameter, message));
        }
        Ok(Self {
            form: Form::of(request)?,
            whole,
            id,
            ack: request::ack(request)?,
        })
    }

    /// The ops, and the request id of an atomic batch.
    fn ops(&self, body: Bytes) -> Result<(Vec<Op>, Option<RequestId>), BadRequest> {
        let ops = match self.form {
            Form::Frames => with_ack(decode_ops(body).map_err(malformed)?, self.ack),
            Form::Lines => decode_lines(&body, self.ack).map_err(malformed)?,
        };
        let id = match self.whole {
            Whole::No => None,
            Whole::Atomic => one_id(self.id, &ops)?,
        };
        Ok((ops, id))
    }
}

/// The one request id of an atomic batch: from the header, or that of its first op.
fn one_id(header: Option<RequestId>, ops: &[Op]) -> Result<Option<RequestId>, BadRequest> {
    let mut of_ops = ops.iter().map(|op| op.terms.request_id);
    let first = of_ops.next().flatten();
    if let Some(at) = of_ops.position(|id| id.is_some()) {
        let number = at + 2;
        return Err(malformed(format!(
            "op {number} has a request id; an atomic batch has one for all, on its first op"
        )));
    }
    match (header, first) {
        (Some(_), Some(_)) => Err(malformed(format!(
            "a request id stands in {} and on the first op; give it once",
            header::REQUEST_ID
        ))),
        (header, first) => Ok(header.or(first)),
    }
}

/// Gives an ack to the writes that have none.
fn with_ack(mut ops: Vec<Op>, ack: Option<Ack>) -> Vec<Op> {
    for op in ops.iter_mut().filter(|op| op.action.is_write()) {
        op.terms.ack = op.terms.ack.or(ack);
    }
    ops
}

fn malformed(problem: impl std::fmt::Display) -> BadRequest {
    BadRequest::new(
        ErrorCode::MalformedBatch,
        format!("{problem}; nothing was done"),
    )
}
