//! One attempt: a request to a gateway, and what its answer means by the error contract.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use longhaul_core::error_code::{Effect, ErrorCode};
use longhaul_core::ids::Dot;
use longhaul_core::version::Version;
use longhaul_http::client::{CallError, success};
use longhaul_http::trace;
use longhaul_http::wire::records::{EPOCH, REGION, SESSION, Written};

/// What an answer says.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// The region that served, by name.
    pub(super) region: Option<String>,
    /// Its epoch.
    pub(super) epoch: u64,
    /// The version written or read.
    pub(super) version: Option<Version>,
    /// Of a write: its place.
    pub(super) dot: Option<Dot>,
    /// The session token.
    pub(super) token: Option<String>,
    /// Whether its trace is kept.
    pub(super) kept: bool,
    /// Of a read: the value; `None` if there is no such record.
    pub(super) value: Option<Bytes>,
}

/// How one attempt ended.
#[derive(Debug)]
pub(super) enum Attempt {
    /// With an answer to what was asked (also: that there is no such record).
    Answered(Answer),
    /// Definitely without effect.
    Refused {
        /// The code; `None` if the gateway could not even be reached.
        code: Option<ErrorCode>,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// Milliseconds to wait, if the answer says so.
        after_ms: Option<u64>,
        /// Whether its trace is kept.
        kept: bool,
    },
    /// It may have taken effect.
    Unknown {
        /// The code, if there was an answer.
        code: Option<ErrorCode>,
        /// Whether its trace is kept.
        kept: bool,
    },
}

/// Reads `region.incarnation:seq`.
pub(crate) fn parse_dot(text: &str) -> Option<Dot> {
    let (timeline, seq) = text.split_once(':')?;
    Some(Dot { timeline: timeline.parse().ok()?, seq: seq.parse().ok()? })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn common(headers: &HeaderMap) -> Answer {
    Answer {
        region: text(headers, REGION),
        epoch: text(headers, EPOCH).and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        version: text(headers, "etag").and_then(|tag| tag.trim_matches('"').parse().ok()),
        dot: None,
        token: text(headers, SESSION),
        kept: trace::extract(headers).is_some_and(|context| context.flags & trace::SAMPLED != 0),
        value: None,
    }
}

/// What a finished call means. `write`: whether it asked for a change.
pub(super) fn read_answer(address: &str, call: Result<Response<Bytes>, CallError>, write: bool) -> Attempt {
    let answer = match call {
        Ok(answer) => answer,
        Err(error) => return from_error(&error, false),
    };
    let headers = common(answer.headers());
    let kept = headers.kept;
    match success(address, answer) {
        Ok(answer) if write => match serde_json::from_slice::<Written>(answer.body()) {
            Ok(written) => match (written.version.parse(), parse_dot(&written.dot)) {
                (Ok(version), Some(dot)) => Attempt::Answered(Answer {
                    region: Some(written.region),
                    epoch: written.epoch,
                    version: Some(version),
                    dot: Some(dot),
                    ..headers
                }),
                _ => Attempt::Unknown { code: None, kept },
            },
            // A success that cannot be read says nothing certain about the write.
            Err(_) => Attempt::Unknown { code: None, kept },
        },
        Ok(answer) if answer.status() == StatusCode::OK && headers.version.is_some() => {
            Attempt::Answered(Answer { value: Some(answer.into_body()), ..headers })
        }
        Ok(_) => Attempt::Unknown { code: None, kept },
        Err(CallError::Problem { problem, .. }) if problem.code == ErrorCode::NotFound => {
            Attempt::Answered(Answer { version: None, ..headers })
        }
        Err(error) => from_error(&error, kept),
    }
}

fn from_error(error: &CallError, kept: bool) -> Attempt {
    let (code, retryable, after_ms) = match error {
        CallError::Problem { problem, .. } => (Some(problem.code), problem.code.is_retryable(), problem.retry_after_ms),
        CallError::Unreachable { .. } => (None, true, None),
        CallError::Deadline { .. } | CallError::Broken { .. } | CallError::Unreadable { .. } => (None, false, None),
    };
    match error.effect() {
        Effect::None => Attempt::Refused { code, retryable, after_ms, kept },
        Effect::Unknown => Attempt::Unknown { code, kept },
    }
}

#[cfg(test)]
mod tests {
    use longhaul_http::problem::Problem;

    use super::*;

    fn problem(code: ErrorCode) -> Response<Bytes> {
        let body = serde_json::to_vec(&Problem::new(code, "why")).unwrap();
        Response::builder().status(code.status()).body(Bytes::from(body)).unwrap()
    }

    #[test]
    fn every_code_is_definite_or_unknown_as_the_contract_says() {
        for code in ErrorCode::ALL.iter().copied().filter(|code| *code != ErrorCode::NotFound) {
            match (code.effect(), read_answer("a", Ok(problem(code)), true)) {
                (Effect::None, Attempt::Refused { code: Some(read), retryable, .. }) => {
                    assert_eq!((read, retryable), (code, code.is_retryable()));
                }
                (Effect::Unknown, Attempt::Unknown { code: Some(read), .. }) => assert_eq!(read, code),
                (effect, attempt) => panic!("{code:?} is {effect:?} and was read as {attempt:?}"),
            }
        }
    }

    #[test]
    fn a_broken_connection_is_unknown_and_no_connection_is_definite() {
        let broken = CallError::Broken { address: "a".to_owned(), reason: "reset".to_owned() };
        assert!(matches!(read_answer("a", Err(broken), true), Attempt::Unknown { .. }));
        let refused = CallError::Unreachable { address: "a".to_owned(), reason: "refused".to_owned() };
        assert!(matches!(read_answer("a", Err(refused), true), Attempt::Refused { retryable: true, .. }));
    }

    #[test]
    fn a_success_that_cannot_be_read_is_no_acknowledgement() {
        let answer = Response::builder().status(200).body(Bytes::from_static(b"{}")).unwrap();
        assert!(matches!(read_answer("a", Ok(answer), true), Attempt::Unknown { .. }));
    }

    #[test]
    fn dots_are_read_as_they_are_shown() {
        let dot = parse_dot("2.3:45").unwrap();
        assert_eq!(dot.to_string(), "2.3:45");
        assert_eq!(parse_dot("2.3"), None);
        assert_eq!(parse_dot("x.3:4"), None);
    }
}
