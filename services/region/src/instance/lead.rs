//! Being the holder: the region runs in this process for one term.

use std::sync::Arc;

use longhaul_core::limits::STORE_HOLD_RENEW;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Instance, down};
use crate::run::{RunError, Running, start};
use crate::state::Tenure;
use crate::store::StoreError;
use crate::store::postgres::{HOLD_USABLE, Hold, PostgresStore};

impl Instance {
    /// Runs the region until its store fails, its hold is lost, or the instance is told to stop.
    pub(super) async fn lead(&self, mut hold: Hold) -> Result<(), RunError> {
        let tenure = Tenure::beginning(self.clock.boot_ns().saturating_add(hold.wait().as_nanos() as u64));
        let (lost, ended) = (CancellationToken::new(), CancellationToken::new());
        let term = hold.term();
        let keeping = self.keep(&mut hold, &tenure, &lost, &ended);
        let leading = async {
            let led = self.run_term(term, &tenure, &lost).await;
            ended.cancel();
            led
        };
        let (kept, led) = futures::join!(keeping, leading);
        tenure.end();
        match (kept, led) {
            // In order: nothing of this term is on its way, and the next holder need not wait.
            (Ok(()), Ok(())) => {
                hold.release().await;
                Ok(())
            }
            (Err(lost), Ok(())) => Err(lost.into()),
            (_, Err(failed)) => Err(failed),
        }
    }

    /// Renews the hold until the term ends. Ends the term if the hold cannot be renewed.
    async fn keep(
        &self,
        hold: &mut Hold,
        tenure: &Tenure,
        lost: &CancellationToken,
        ended: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut ticks = tokio::time::interval(STORE_HOLD_RENEW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let asked_ns = self.clock.boot_ns();
            if let Err(error) = hold.renew().await {
                tenure.end();
                self.unavailable(&error);
                lost.cancel();
                return Err(error);
            }
            tenure.renew(asked_ns.saturating_add(HOLD_USABLE.as_nanos() as u64));
        }
    }

    /// Tells users from now on why they are refused.
    pub(super) fn unavailable(&self, reason: &impl ToString) {
        self.front.show(down::router(self.config.name(), &reason.to_string()));
    }

    async fn run_term(&self, term: i64, tenure: &Arc<Tenure>, lost: &CancellationToken) -> Result<(), RunError> {
        let store = Arc::new(PostgresStore::open(&self.server, term).await?);
        let starting = start(
            store,
            Arc::clone(&self.clock),
            self.client.clone(),
            self.config.clone(),
            Arc::clone(tenure),
            &self.stop,
        );
        let mut running: Running = starting.await?;
        if !lost.is_cancelled() {
            self.front.show(running.router.clone());
        }
        let failed = tokio::select! {
            biased;
            () = lost.cancelled() => Ok(()),
            failed = running.failed() => failed,
            () = self.drained.cancelled() => return running.finish().await,
        };
        tenure.end();
        if let Err(error) = &failed {
            self.unavailable(error);
        }
        running.abandon().await;
        failed
    }
}
