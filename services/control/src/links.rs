//! Links, through their agents.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Method};
use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::LocationName;
use longhaul_core::limits::CONTROL_DEADLINE;
use longhaul_core::link::LinkPatch;
use longhaul_http::problem::Problem;
use longhaul_http::wire::links::{LINK_BYTES_PATH, LINKS_PATH, LINKS_RESET_PATH, LinkBytesView, LinkView, link_path};

use crate::regions::problem;
use crate::state::Control;

/// Deadline of a change of links: an agent of the kernel's links runs programs for it, one location's changes after another, and
/// on a slow machine that takes seconds.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes by directed pair and cause.
pub(crate) type LinkBytesTable = BTreeMap<(String, String), BTreeMap<String, u64>>;

impl Control {
    /// The agents of a directed link; at least one.
    fn agents(&self, from: &str, to: &str) -> Result<Vec<String>, Problem> {
        let location = |name: &str| -> Result<LocationName, Problem> {
            let known = self.config.topology.location(name);
            known.map(|location| location.name.clone()).ok_or_else(|| {
                let names: Vec<_> = self.config.topology.locations.iter().map(|l| l.name.to_string()).collect();
                let detail = format!("{name:?} is no location of this testbed; use one of {}", names.join(", "));
                Problem::new(ErrorCode::UnknownName, detail)
            })
        };
        let (from_name, to_name) = (location(from)?, location(to)?);
        let agents = self.world.link_agents_of(&from_name, &to_name);
        if agents.is_empty() {
            let detail = format!("there is no link from {from} to {to} that can be changed; see /v1/links");
            return Err(Problem::new(ErrorCode::UnknownName, detail));
        }
        Ok(agents)
    }

    /// Every directed link as it is now.
    pub(crate) async fn link_views(&self) -> Result<Vec<LinkView>, Problem> {
        let agents = self.world.link_agents();
        let asks = agents.iter().map(|agent| self.client.get::<Vec<LinkView>>(agent, LINKS_PATH, CONTROL_DEADLINE));
        let mut links = BTreeMap::new();
        for some in futures::future::join_all(asks).await {
            for view in some.map_err(|error| problem("the agent of the links", &error))? {
                // Where two agents drive one link, each has connections of its own.
                let link = links.entry((view.from.clone(), view.to.clone()));
                link.and_modify(|known: &mut LinkView| {
                    known.connections += view.connections;
                    known.dead_connections += view.dead_connections;
                })
                .or_insert(view);
            }
        }
        Ok(links.into_values().collect())
    }

    /// One directed link as it is now.
    pub(crate) async fn link_view(&self, from: &str, to: &str) -> Result<LinkView, Problem> {
        let agents = self.agents(from, to)?;
        let answer = self.client.get(&agents[0], &link_path(from, to), CONTROL_DEADLINE).await;
        answer.map_err(|error| problem("the agent of the links", &error))
    }

    /// Tells every agent of a directed link to change it.
    async fn patch_agents(&self, from: &str, to: &str, patch: &LinkPatch) -> Result<LinkView, Problem> {
        let agents = self.agents(from, to)?;
        let path = link_path(from, to);
        let patches = agents.iter().map(|agent| {
            self.client.json::<_, LinkView>(Method::PATCH, agent, &path, HeaderMap::new(), Some(patch), CHANGE_DEADLINE)
        });
        let mut views = Vec::with_capacity(agents.len());
        for answer in futures::future::join_all(patches).await {
            views.push(answer.map_err(|error| problem("the agent of the links", &error))?);
        }
        Ok(views.swap_remove(0))
    }

    /// The patch that puts a link back to what the topology declares.
    pub(crate) fn declared_patch(&self, from: &str, to: &str) -> Option<LinkPatch> {
        let topology = &self.config.topology;
        let ((_, _), link) = topology.links.iter().find(|((a, b), _)| a.as_str() == from && b.as_str() == to)?;
        Some(link.profile.as_patch())
    }

    /// Changes several links at once, or none: where one refuses, all are put back to what they were. The first refusal is
    /// the answer, with the links that could not be put back.
    pub(crate) async fn patch_links(&self, changes: &[(String, String, LinkPatch)]) -> Result<Vec<LinkView>, Problem> {
        for (_, _, patch) in changes {
            patch.validate().map_err(|error| Problem::new(ErrorCode::BadRequest, error.to_string()))?;
        }
        let looks = changes.iter().map(|(from, to, _)| self.link_view(from, to));
        let before: Vec<LinkView> = futures::future::join_all(looks).await.into_iter().collect::<Result<_, _>>()?;
        let patches = changes.iter().map(|(from, to, patch)| self.patch_agents(from, to, patch));
        let done: Result<Vec<LinkView>, Problem> = futures::future::join_all(patches).await.into_iter().collect();
        let Err(refusal) = done else { return done };
        Err(self.put_back(&before, refusal).await)
    }

    /// Puts links back to what they were; the refusal then says whether they are.
    async fn put_back(&self, before: &[LinkView], refusal: Problem) -> Problem {
        let patches = before.iter().map(|view| {
            let mut patch = view.current.as_patch();
            if view.flap_ms.is_some() {
                // The flap's own state was of a moment.
                patch.state = Some(view.declared.state);
                patch.flap_ms = view.flap_ms;
            }
            async move {
                let put = self.patch_agents(&view.from, &view.to, &patch).await;
                put.is_err().then(|| format!("{} to {}", view.from, view.to))
            }
        });
        let stuck: Vec<_> = futures::future::join_all(patches).await.into_iter().flatten().collect();
        let detail = if stuck.is_empty() {
            format!("{}; no link is changed", refusal.detail)
        } else {
            let remedy = "heal the links (POST /v1/faults {\"do\": \"heal-links\"}) when their agents answer";
            format!("{}; may still be changed: {}: {remedy}", refusal.detail, stuck.join(", "))
        };
        Problem { detail, ..refusal }
    }

    /// Puts every link back to its declared profile.
    pub(crate) async fn restore_all_links(&self) -> Result<(), Problem> {
        let agents = self.world.link_agents();
        let asks = agents.iter().map(|agent| {
            let headers = HeaderMap::new();
            self.client.json::<(), Vec<LinkView>>(Method::POST, agent, LINKS_RESET_PATH, headers, None, CHANGE_DEADLINE)
        });
        for answer in futures::future::join_all(asks).await {
            answer.map_err(|error| problem("the agent of the links", &error))?;
        }
        Ok(())
    }

    /// Every directed pair that begins or ends at a location.
    pub(crate) fn pairs_of(&self, location: &str) -> Vec<(String, String)> {
        let pairs = self.config.topology.links.keys();
        pairs
            .filter(|(from, to)| from.as_str() == location || to.as_str() == location)
            .map(|(from, to)| (from.to_string(), to.to_string()))
            .collect()
    }

    /// What crossed each link since the testbed started. Agents that do not answer are left out.
    pub(crate) async fn link_bytes(&self) -> LinkBytesTable {
        let mut table = LinkBytesTable::new();
        for agent in self.world.link_agents() {
            match self.client.get::<Vec<LinkBytesView>>(&agent, LINK_BYTES_PATH, CONTROL_DEADLINE).await {
                Ok(links) => {
                    for link in links {
                        let known = table.entry((link.from, link.to)).or_default();
                        for (cause, bytes) in link.bytes {
                            *known.entry(cause).or_default() += bytes;
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot read the bytes of links"),
            }
        }
        table
    }
}
