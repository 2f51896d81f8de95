//! Users who write while something breaks, and the ledger of what they were told: what was acknowledged must be there,
//! what was refused must not, and what is unknown is resolved by repeating it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::instance::{Answer, Api};

/// One write as its user saw it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    id: String,
    op_id: String,
    value: Value,
    answer: Answer,
    /// When it was answered.
    pub(crate) at: Instant,
}

impl Entry {
    /// Whether it was acknowledged.
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.answer, Answer::Ok(_))
    }
}

/// Users at work.
pub(crate) struct Users {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Vec<Entry>>,
}

impl Users {
    /// Starts `count` users; each writes one new record after the other, to each address in turn.
    pub(crate) fn start(api: &Api, addresses: &[&str], count: u128) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        for user in 0..count {
            let (api, stop, addresses) = (api.clone(), Arc::clone(&stop), addresses.clone());
            tasks.spawn(async move { write_on(&api, &addresses, user, &stop).await });
        }
        Self { stop, tasks }
    }

    /// Stops them and returns everything that they were told.
    pub(crate) async fn stop(mut self) -> Vec<Entry> {
        self.stop.store(true, Ordering::Relaxed);
        let mut entries = Vec::new();
        while let Some(part) = self.tasks.join_next().await {
            entries.extend(part.expect("a user never panics"));
        }
        entries.sort_by_key(|entry| entry.at);
        entries
    }
}

#[expect(clippy::disallowed_methods, reason = "a user outside of the program looks at a real clock")]
async fn write_on(api: &Api, addresses: &[String], user: u128, stop: &AtomicBool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for number in 0_u128.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (id, value) = (format!("u{user}-{number}"), json!({"user": user as u64, "number": number as u64}));
        let op_id = uuid((user + 1) << 64 | number);
        let address = &addresses[(user + number) as usize % addresses.len()];
        let answer = api.put(address, &id, &op_id, &value).await;
        let refused = !matches!(answer, Answer::Ok(_));
        entries.push(Entry { id, op_id, value, answer, at: Instant::now() });
        if refused {
            // Users who are refused do not ask at full speed.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    entries
}

/// A number as an operation id.
pub(crate) fn uuid(number: u128) -> String {
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// How many writes ended how.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
}

/// Judges the ledger against what `address` has now.
pub(crate) async fn judge(api: &Api, address: &str, entries: &[Entry]) -> Counts {
    let mut counts = Counts::default();
    for entry in entries {
        let path = format!("/v1/records/eu-west/{}", entry.id);
        let found = match api.get(address, &path).await {
            Answer::Ok(value) => Some(value),
            Answer::Refused(longhaul_core::error_code::ErrorCode::NotFound, _) => None,
            other => panic!("{path} cannot be read: {other:?}"),
        };
        match &entry.answer {
            Answer::Ok(_) => {
                assert_eq!(found.as_ref(), Some(&entry.value), "{} was acknowledged and is lost", entry.id);
                counts.acknowledged += 1;
            }
            Answer::Refused(code, detail) => {
                assert_eq!(found, None, "{} was refused ({code:?}: {detail}) and is there", entry.id);
                counts.refused += 1;
            }
            Answer::Unknown(_) => {
                // The same operation again: it happens now, or is told that it has happened, but never twice.
                let again = api.put(address, &entry.id, &entry.op_id, &entry.value).await;
                let Answer::Ok(written) = again else { panic!("{} cannot be resolved: {again:?}", entry.id) };
                assert_eq!(written["repeated"], found.is_some(), "{}: {written}", entry.id);
                counts.unknown += 1;
            }
        }
    }
    counts
}
