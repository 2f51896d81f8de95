//! Request bodies and queries whose refusals are problem documents.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::request::Parts;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::problem::Problem;
use serde::de::DeserializeOwned;

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(error) => Err(refused(&error)),
        }
    }
}

fn refused(error: &JsonRejection) -> Problem {
    let code = match error {
        JsonRejection::JsonDataError(_) | JsonRejection::MissingJsonContentType(_) => ErrorCode::BadRequest,
        JsonRejection::JsonSyntaxError(_) => ErrorCode::BadJson,
        _ => ErrorCode::TooLarge,
    };
    Problem::new(code, format!("the body cannot be used: {}", error.body_text()))
}

/// A query string.
pub(crate) struct Ask<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Ask<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(refused_query(&error)),
        }
    }
}

fn refused_query(error: &QueryRejection) -> Problem {
    Problem::new(ErrorCode::BadRequest, format!("the query cannot be used: {}", error.body_text()))
}
