//! The ledger on its way to the role that judges: what one role's users saw, in binary form.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use longhaul_http::client::HttpClient;
use longhaul_http::problem::Problem;
use longhaul_http::wire::traffic::run_ledger_path;
use serde::{Deserialize, Serialize};

use super::{Entry, Ledger};
use crate::workload::Key;

/// Deadline of fetching one ledger: it has up to two million entries of some hundred bytes.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);

/// Records and operations of a ledger. Its other fields follow from the request of the run, which every role has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pages<'a> {
    keys: Cow<'a, [Key]>,
    entries: Cow<'a, [Entry]>,
}

impl<'a> Pages<'a> {
    /// What a ledger holds.
    pub fn of(ledger: &'a Ledger) -> Self {
        Self { keys: Cow::Borrowed(&ledger.keys), entries: Cow::Borrowed(&ledger.entries) }
    }

    /// As sent.
    pub fn to_bytes(&self) -> Result<Bytes, String> {
        postcard::to_stdvec(self).map(Bytes::from).map_err(|error| format!("the ledger cannot be written: {error}"))
    }
}

impl Ledger {
    /// Adds what another role's users of the same run saw.
    pub fn join(&mut self, pages: &Pages<'_>) {
        for entry in pages.entries.iter() {
            let Some(key) = pages.keys.get(entry.key as usize) else { continue };
            let key = self.intern(*key);
            self.entries.push(Entry { key, ..entry.clone() });
        }
        // In the order in which they ended, as in a ledger of one role.
        self.entries.sort_by_key(|entry| entry.ended_ns);
    }
}

/// Fetches the ledger of a run from another role. The error is one line for the report.
pub(crate) async fn fetch(
    client: &HttpClient,
    token: Option<&str>,
    address: &str,
    run: &str,
) -> Result<Pages<'static>, String> {
    let refuse = |reason: String| format!("the ledger of the users at {address} is missing: {reason}");
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = run_ledger_path(run).parse().map_err(|error| refuse(format!("run {run}: {error}")))?;
    if let Some(token) = token {
        let value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| refuse(error.to_string()))?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let answer = client.send(address, request, FETCH_DEADLINE).await.map_err(|error| refuse(error.to_string()))?;
    if !answer.status().is_success() {
        let problem = serde_json::from_slice::<Problem>(answer.body());
        return Err(refuse(problem.map_or_else(|_| answer.status().to_string(), |problem| problem.detail)));
    }
    postcard::from_bytes(answer.body()).map_err(|error| refuse(format!("it cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Consistency, Outcome};
    use crate::value::Observed;
    use crate::workload::{Kind, Slot};
    use longhaul_core::operation::TraceContext;

    fn entry(n: u32, edge: u16, key: u32, ended_ns: u64) -> Entry {
        Entry {
            n,
            op_id: uuid::Uuid::from_u128(u128::from(n)),
            edge,
            session: 0,
            parent: None,
            key,
            kind: Kind::Put,
            consistency: Consistency::Eventual,
            intended_ns: ended_ns - 1,
            sent_ns: ended_ns - 1,
            write_ns: ended_ns - 1,
            ended_ns,
            outcome: Outcome::Unknown,
            code: None,
            attempts: 1,
            region: None,
            epoch: 1,
            dot: None,
            version: None,
            base: None,
            observed: Observed::Nothing,
            trace: Some(TraceContext { trace_id: [7; 16], span_id: [7; 8], flags: 1 }),
        }
    }

    fn ledger(edge: u16, slots: &[u32], first_ns: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for (n, slot) in slots.iter().enumerate() {
            let key = ledger.intern(Key { home: 0, slot: Slot::Register(*slot) });
            ledger.entries.push(entry(n as u32, edge, key, first_ns + 10 * n as u64));
        }
        ledger
    }

    #[test]
    fn joined_ledgers_keep_every_operation_its_record_and_the_order_of_ends() {
        let (mut one, two) = (ledger(0, &[5, 6], 100), ledger(1, &[6, 7, 5], 95));
        let bytes = Pages::of(&two).to_bytes().unwrap();
        one.join(&postcard::from_bytes(&bytes).unwrap());
        let seen: Vec<_> =
            one.entries.iter().map(|entry| (entry.edge, one.keys[entry.key as usize].slot, entry.ended_ns)).collect();
        let register = Slot::Register;
        assert_eq!(
            seen,
            [
                (1, register(6), 95),
                (0, register(5), 100),
                (1, register(7), 105),
                (0, register(6), 110),
                (1, register(5), 115)
            ]
        );
        assert_eq!(one.keys.len(), 3);
    }
}
