//! Changes of the regime as an operator asks for them, and how they end.

use http::{Method, StatusCode};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::RegionId;
use longhaul_core::regime::{Durability, Mode, Regime, Target};
use longhaul_http::wire::regime::{ChangeStarted, ChangeState, ChangeStatus, FailoverRequest, TransitionRequest};

use crate::world::{Answer, NAMES, World};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A region of the tests as the topology numbers it.
pub(crate) fn id(n: usize) -> RegionId {
    RegionId(n as u16 + 1)
}

/// The region of that name, as the tests number it.
pub(crate) fn named(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("no region {name}"))
}

/// Active-passive under this primary.
pub(crate) fn primary(n: usize, durability: Durability) -> Target {
    Target { mode: Mode::ActivePassive, primary: Some(id(n)), durability }
}

/// A mode without a primary.
pub(crate) fn mode(mode: Mode) -> Target {
    Target { mode, primary: None, durability: Durability::Local }
}

/// When something happened in a change (for the last time, if it has several such steps), boot nanoseconds.
pub(crate) fn milestone(change: &ChangeStatus, name: &str) -> Option<u64> {
    change.milestones.iter().rev().find(|milestone| milestone.name == name).map(|milestone| milestone.boot_ns)
}

impl World {
    /// Asks one region for a transition.
    pub(crate) async fn ask_transition(&self, at: usize, target: Target, force: bool) -> Answer {
        let body = serde_json::to_string(&TransitionRequest { target, force }).unwrap();
        self.send(at, Method::POST, "/internal/v1/transitions", &JSON, body).await
    }

    /// Starts a transition, at whichever region coordinates it; that region and the change's id.
    pub(crate) async fn begin_transition(&self, at: usize, target: Target, force: bool) -> (usize, String) {
        let mut at = at;
        for _ in 0..2 {
            let answer = self.ask_transition(at, target, force).await;
            if answer.status != StatusCode::MISDIRECTED_REQUEST {
                return (at, started(&answer));
            }
            let problem = answer.problem();
            assert_eq!(problem.code, ErrorCode::NotPrimary, "{problem:?}");
            at = named(&problem.primary.expect("the coordinator is named"));
        }
        panic!("two regions name each other as the coordinator");
    }

    /// Carries a transition out and waits until every region has adopted its end.
    pub(crate) async fn switch(&self, at: usize, target: Target) -> ChangeStatus {
        let (at, change) = self.begin_transition(at, target, false).await;
        let change = self.end_of(at, &change).await;
        assert_eq!(change.state, ChangeState::Done, "{change:?}");
        for n in 0..self.count() {
            self.adopts(n, change.epoch_to).await;
        }
        change
    }

    /// Starts a failover by command.
    pub(crate) async fn begin_failover(&self, at: usize, to: Option<usize>, allow_data_loss: bool) -> String {
        let request = FailoverRequest { to: to.map(id), allow_data_loss };
        let body = serde_json::to_string(&request).unwrap();
        started(&self.send(at, Method::POST, "/internal/v1/failovers", &JSON, body).await)
    }

    /// Every change that the region knows.
    pub(crate) async fn changes(&self, n: usize) -> Vec<ChangeStatus> {
        self.client.get(&self.addresses[n], "/internal/v1/changes", crate::world::REQUEST).await.unwrap()
    }

    /// Waits for the end of a change that a region drives.
    pub(crate) async fn end_of(&self, at: usize, change: &str) -> ChangeStatus {
        let find = |changes: Vec<ChangeStatus>| changes.into_iter().find(|known| known.id == change);
        let ended = |status: &ChangeStatus| status.state != ChangeState::Running;
        self.until(|w| async move { find(w.changes(at).await).as_ref().is_some_and(ended) }, "the change ends").await;
        find(self.changes(at).await).unwrap()
    }

    /// Waits until a change has reached a milestone at the region that drives it.
    pub(crate) async fn reaches(&self, at: usize, change: &str, name: &str) {
        let reached = |known: &ChangeStatus| {
            let reached = known.id == change && milestone(known, name).is_some();
            assert!(reached || known.id != change || known.state == ChangeState::Running, "never {name}: {known:?}");
            reached
        };
        self.until(|w| async move { w.changes(at).await.iter().any(reached) }, &format!("the change is {name}")).await;
    }

    /// The regime that a region has adopted.
    pub(crate) async fn regime(&self, n: usize) -> Regime {
        self.client.get(&self.addresses[n], "/v1/regime", crate::world::REQUEST).await.unwrap()
    }

    /// Waits until a region has adopted this epoch, or a later one.
    pub(crate) async fn adopts(&self, n: usize, epoch: u64) {
        self.until(|w| async move { w.regime(n).await.epoch.0 >= epoch }, &format!("{} adopts {epoch}", NAMES[n]))
            .await;
    }

    /// Waits until a region's regime is of this kind.
    pub(crate) async fn regime_becomes(&self, n: usize, holds: impl Fn(&Regime) -> bool, what: &str) -> Regime {
        let holds = &holds;
        self.until(|w| async move { holds(&w.regime(n).await) }, what).await;
        self.regime(n).await
    }

    /// Where these texts are found in everything that a region keeps.
    pub(crate) async fn sweep(&self, n: usize, needles: &[String]) -> Vec<(usize, String)> {
        let body = serde_json::json!({ "needles": needles }).to_string();
        let answer = self.send(n, Method::POST, "/internal/v1/sweep", &JSON, body).await.ok();
        serde_json::from_slice::<longhaul_http::wire::status::SweepResult>(&answer.body).unwrap().found
    }
}

fn started(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{text}");
    serde_json::from_slice::<ChangeStarted>(&answer.body).unwrap().id
}
