//! `POST /batch`: many ops in one request. Understood whole or not at all.

use actix_web::{HttpRequest, HttpResponse, web};
use kvclient::wire::{
    MAX_BATCH_BYTES,
    batch::{decode_ops, encode_results},
    content_type,
    error::ErrorCode,
    query::Query,
};

use super::{answer, body, request::BadRequest};
use crate::service::Service;

/// Does the ops of a batch and answers each.
pub(super) async fn batch(
    request: HttpRequest,
    payload: &mut web::Payload,
    service: web::Data<Service>,
) -> HttpResponse {
    if let Err(error) = check(&request) {
        return answer::refused_write(error, &service);
    }
    let body = match body::read(&service, &request, payload, MAX_BATCH_BYTES).await {
        Ok(body) => body,
        Err(error) => return answer::refused_write(error, &service),
    };
    let ops = match decode_ops(body.bytes.clone()) {
        Ok(ops) => ops,
        Err(error) => {
            let error = BadRequest::new(
                ErrorCode::MalformedBatch,
                format!("{error}; nothing was done"),
            );
            return answer::refused_write(error, &service);
        }
    };
    service.metrics.saw_batch(ops.len());
    let results = service.execute(ops).await;
    answer::data(200, &service)
        .content_type(content_type::FRAMES)
        .body(encode_results(results.iter()))
}

fn check(request: &HttpRequest) -> Result<(), BadRequest> {
    let query = Query::parse(request.uri().query().unwrap_or_default(), &["atomic"])?;
    if query.flag("atomic")? {
        return Err(BadRequest::new(
            ErrorCode::NotImplemented,
            "?atomic is not in this version; nothing was done",
        ));
    }
    let given = request
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    if given != Some(content_type::FRAMES) {
        let message = format!("a batch is {}; nothing was done", content_type::FRAMES);
        return Err(BadRequest::new(ErrorCode::UnsupportedMediaType, message));
    }
    Ok(())
}
