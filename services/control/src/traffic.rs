//! Traffic, through its roles: runs for drills, continuous traffic for people. One role may play all edges, or one role
//! each edge; then their ledgers are joined for the judgement.

use std::time::Duration;

use http::{HeaderMap, Method};
use longhaul_core::ids::LocationName;
use longhaul_core::limits::CONTROL_DEADLINE;
use longhaul_core::plan::Workload;
use longhaul_http::problem::Problem;
use longhaul_http::wire::control::EventKind;
use longhaul_http::wire::traffic::{
    EdgeTarget, Findings, JudgeRequest, RUNS_PATH, RegionTarget, RunPart, RunProgress, RunRequest, RunStarted,
    RunState, TRAFFIC_PATH, TrafficRequest, TrafficStatus, run_judge_path, run_path, run_stop_path,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::regions::problem;
use crate::state::Control;
use crate::world::Player;

/// Time between asking several traffic roles to start a run and its first operation: all must have heard of it.
const RUN_LEAD: Duration = Duration::from_secs(1);

/// Start continuous traffic at every edge.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TrafficCommand {
    /// What users do; the default workload if absent.
    pub(crate) workload: Workload,
    /// The seed of everything random.
    pub(crate) seed: u64,
    /// How long, seconds; until it is stopped if absent.
    pub(crate) seconds: Option<f64>,
}

impl Control {
    /// Every edge with the gateway that its users enter at.
    pub(crate) fn edge_targets(&self) -> Vec<EdgeTarget> {
        let topology = &self.config.topology;
        let target = |edge: &longhaul_core::topology::Location| {
            Some(EdgeTarget {
                name: edge.name.to_string(),
                home: topology.region_name(edge.home?)?.to_string(),
                gateway: self.world.gateway_address(&edge.name)?,
            })
        };
        topology.edges().filter_map(target).collect()
    }

    /// Every region with its own address.
    pub(crate) fn region_targets(&self) -> Vec<RegionTarget> {
        let target = |name: &longhaul_core::ids::LocationName| {
            Some(RegionTarget { name: name.to_string(), address: self.world.region_address(name)? })
        };
        self.config.topology.regions().filter_map(|(_, name)| target(name)).collect()
    }

    /// Asks one traffic role.
    async fn ask<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        player: &Player,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<A, Problem> {
        let answer = self.client.json(method, &player.address, path, headers, body, deadline).await;
        answer.map_err(|error| problem("traffic", &error))
    }

    /// Asks every traffic role the same at once; the first problem is the answer.
    async fn ask_players<A: DeserializeOwned>(&self, method: Method, path: &str) -> Result<Vec<A>, Problem> {
        let players = self.world.players();
        let asks = players
            .iter()
            .map(|player| self.ask::<(), A>(player, method.clone(), path, HeaderMap::new(), None, CONTROL_DEADLINE));
        futures::future::join_all(asks).await.into_iter().collect()
    }

    /// Starts a run. Where several roles play, each gets its part, and all start at the same moment.
    pub(crate) async fn start_run(&self, request: RunRequest, headers: HeaderMap) -> Result<RunStarted, Problem> {
        let players = self.world.players();
        let id = self.ids.next().to_string();
        let start_boot_ns = self.clock.boot_ns() + u64::try_from(RUN_LEAD.as_nanos()).unwrap_or(u64::MAX);
        let parts = players.iter().enumerate().map(|(place, player)| {
            let part = names(player).map(|edges| RunPart { id: id.clone(), start_boot_ns, edges, judges: place == 0 });
            (player, RunRequest { part, ..request.clone() })
        });
        let asks = parts.map(|(player, request)| {
            let headers = headers.clone();
            async move {
                self.ask::<_, RunStarted>(player, Method::POST, RUNS_PATH, headers, Some(&request), CONTROL_DEADLINE)
                    .await
            }
        });
        let answers: Vec<_> = futures::future::join_all(asks).await;
        if answers.len() > 1 && answers.iter().any(Result::is_err) {
            // Those that did start must not play alone.
            for stopped in answers.iter().flatten() {
                if let Err(problem) = self.stop_run(&stopped.id).await {
                    tracing::debug!(detail = problem.detail, "a part of a run cannot be stopped");
                }
            }
        }
        let mut started = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(started.swap_remove(0))
    }

    /// How far a run has come: as far as the slowest of its parts.
    pub(crate) async fn run_progress(&self, id: &str) -> Result<RunProgress, Problem> {
        let mut parts = self.ask_players::<RunProgress>(Method::GET, &run_path(id)).await?;
        let mut whole = parts.swap_remove(0);
        for part in parts {
            whole.state = earlier(whole.state, part.state);
            whole.edges.extend(part.edges);
        }
        Ok(whole)
    }

    /// Ends a run early.
    pub(crate) async fn stop_run(&self, id: &str) -> Result<(), Problem> {
        self.ask_players::<RunProgress>(Method::POST, &run_stop_path(id)).await.map(|_| ())
    }

    /// Has a run judged by the first role, with the ledgers of all.
    pub(crate) async fn judge_run(
        &self,
        id: &str,
        request: JudgeRequest,
        headers: HeaderMap,
        deadline: Duration,
    ) -> Result<Findings, Problem> {
        let players = self.world.players();
        let others = players.iter().skip(1).map(|player| player.address.clone()).collect();
        let request = JudgeRequest { others, ..request };
        self.ask(&players[0], Method::POST, &run_judge_path(id), headers, Some(&request), deadline).await
    }

    /// Starts continuous traffic.
    pub(crate) async fn start_traffic(&self, command: TrafficCommand) -> Result<TrafficStatus, Problem> {
        let TrafficCommand { workload, seed, seconds } = command;
        let players = self.world.players();
        let asks = players.iter().map(|player| {
            let (workload, edges) = (workload.clone(), self.edge_targets());
            let request = TrafficRequest { workload, edges, seed, seconds, play: names(player) };
            async move {
                let headers = HeaderMap::new();
                self.ask(player, Method::POST, TRAFFIC_PATH, headers, Some(&request), CONTROL_DEADLINE).await
            }
        });
        let answers = futures::future::join_all(asks).await.into_iter().collect::<Result<Vec<_>, Problem>>();
        let status = match answers {
            Ok(statuses) => joined(statuses),
            Err(problem) => {
                // All edges have traffic, or none.
                if players.len() > 1 && self.stop_traffic().await.is_err() {
                    tracing::warn!("traffic may still flow at some edges");
                }
                return Err(problem);
            }
        };
        let text = format!("traffic flows, {} operations a second", status.rate_per_s);
        self.events.record(EventKind::Traffic, None, text);
        Ok(status)
    }

    /// Continuous traffic as it is.
    pub(crate) async fn traffic(&self) -> Result<TrafficStatus, Problem> {
        self.ask_players(Method::GET, TRAFFIC_PATH).await.map(joined)
    }

    /// Stops continuous traffic.
    pub(crate) async fn stop_traffic(&self) -> Result<TrafficStatus, Problem> {
        let status = self.ask_players(Method::DELETE, TRAFFIC_PATH).await.map(joined)?;
        self.events.record(EventKind::Traffic, None, "traffic has stopped");
        Ok(status)
    }
}

/// The edges that a role plays, by name; `None` for all.
fn names(player: &Player) -> Option<Vec<String>> {
    player.edges.as_ref().map(|edges| edges.iter().map(LocationName::to_string).collect())
}

fn earlier(a: RunState, b: RunState) -> RunState {
    let order = [RunState::Warming, RunState::Running, RunState::Judging, RunState::FinishedSending, RunState::Done];
    order.into_iter().find(|state| *state == a || *state == b).unwrap_or(a)
}

/// The traffic of all roles as one.
fn joined(statuses: Vec<TrafficStatus>) -> TrafficStatus {
    statuses.into_iter().fold(TrafficStatus::default(), |mut all, one| {
        all.running |= one.running;
        all.rate_per_s += one.rate_per_s;
        all.elapsed_s = all.elapsed_s.max(one.elapsed_s);
        all.edges.extend(one.edges);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_of_several_roles_is_shown_as_one() {
        let status = |running, rate_per_s, edge: &str| TrafficStatus {
            running,
            rate_per_s,
            elapsed_s: rate_per_s,
            edges: [(edge.to_owned(), longhaul_http::wire::traffic::EdgeProgress::default())].into(),
        };
        let all = joined(vec![status(false, 50.0, "a"), status(true, 100.0, "b")]);
        assert!(all.running && (all.rate_per_s - 150.0).abs() < 1e-9 && (all.elapsed_s - 100.0).abs() < 1e-9);
        assert_eq!(all.edges.keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_run_is_as_far_as_its_slowest_part() {
        assert_eq!(earlier(RunState::FinishedSending, RunState::Running), RunState::Running);
        assert_eq!(earlier(RunState::Warming, RunState::Done), RunState::Warming);
        assert_eq!(earlier(RunState::FinishedSending, RunState::FinishedSending), RunState::FinishedSending);
    }
}
