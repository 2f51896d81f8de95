//! What regions have accepted and history has cut off: told, and decided upon, only by a region that knows its tail.

use std::collections::BTreeMap;

use http::HeaderMap;
use longhaul_core::error_code::ErrorCode;
use longhaul_http::problem::Problem;
use longhaul_http::wire::status::{QUARANTINE_DECIDE_PATH, QuarantineDecision, QuarantineOutcome, QuarantineView};

use crate::regions::problem;
use crate::state::Control;

impl Control {
    /// A region's quarantined operations, by a query for a part of them.
    pub(crate) async fn divergent(&self, region: &str, query: &str) -> Result<Vec<QuarantineView>, Problem> {
        self.knows_its_tail(region).await?;
        self.ask_region(region, query).await
    }

    /// Merges or discards quarantined operations of a region.
    pub(crate) async fn decide_divergent(
        &self,
        region: &str,
        decision: &QuarantineDecision,
        headers: HeaderMap,
    ) -> Result<QuarantineOutcome, Problem> {
        self.knows_its_tail(region).await?;
        let told = self.tell_region(region, QUARANTINE_DECIDE_PATH, decision, headers).await;
        told.map_err(|error| problem(region, &error))
    }

    /// A region that has just returned does not know at once where its history was cut. Until it does, "nothing is
    /// quarantined" would be no answer, and a decision on everything would decide on nothing.
    async fn knows_its_tail(&self, region: &str) -> Result<(), Problem> {
        self.region_address(region)?;
        let (regime, adopted) = self.regime().await?;
        up_to_date(region, regime.epoch.0, &adopted)
    }
}

/// Whether a region has adopted the highest epoch that is known. Who does not tell its own passes: it says why in the
/// answer to the next question.
fn up_to_date(region: &str, highest: u64, adopted: &BTreeMap<String, u64>) -> Result<(), Problem> {
    let Some(epoch) = adopted.get(region).filter(|epoch| **epoch < highest) else { return Ok(()) };
    let detail = format!(
        "region {region} is at epoch {epoch} of {highest}: it does not know yet what history has cut off; \
         ask again in a moment"
    );
    Err(Problem::new(ErrorCode::NotReady, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_decides_about_a_tail_that_its_region_does_not_know_yet() {
        let adopted = BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 4)]);
        let problem = up_to_date("a", 4, &adopted).unwrap_err();
        assert_eq!(problem.code, ErrorCode::NotReady);
        assert!(problem.detail.contains("region a is at epoch 3 of 4"), "{}", problem.detail);
        up_to_date("b", 4, &adopted).unwrap();
        up_to_date("c", 4, &adopted).unwrap();
    }
}
