//! Which baseline the agent in this process subtracts.

use std::sync::PoisonError;

use super::super::baseline::{
    Baseline, BaselineError, Effort, Given, IdleState, LearnSettings, Learning, Unstable, learn,
};
use super::local::LocalAgent;
use super::{AgentError, Relearn};
use crate::clock::Timestamp;

impl LocalAgent {
    /// The baseline for a state, from now on.
    pub(super) fn baseline_for(
        &self,
        state: IdleState,
        anew: Relearn,
        progress: &mut dyn FnMut(Learning),
    ) -> Result<Baseline, AgentError> {
        // Two at a time would watch each other's readings, and freeze two.
        let _one = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if anew != Relearn::Always
            && let Some(baseline) = self.frozen_for(state)?
        {
            self.core.flowing().flows.set_baseline(baseline.clone());
            return Ok(baseline);
        }
        if anew == Relearn::IfPossible
            && let Some(baseline) = self.in_use(state)
        {
            return Ok(baseline);
        }
        let baseline = self.new_baseline(state, anew, progress)?;
        baseline.freeze(&self.settings.baselines)?;
        self.core.flowing().flows.set_baseline(baseline.clone());
        Ok(baseline)
    }

    /// The baseline that the open leases are measured with. Idle power cannot be learned from their
    /// work.
    fn in_use(&self, state: IdleState) -> Option<Baseline> {
        let flowing = self.core.flowing();
        let baseline = flowing.flows.baseline()?;
        let fits = flowing.flows.is_measuring() && baseline.state == state;
        fits.then(|| baseline.clone())
    }

    /// Learns a baseline where none was learned. One that is known only once a lease is open waits
    /// for the next run: what is subtracted does not change under a lease.
    ///
    /// # Errors
    /// When there is no steady idle power.
    pub fn learn_where_missing(&self) -> Result<(), AgentError> {
        let _one = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_to_learn() {
            return Ok(());
        }
        let baseline = match self.frozen_for(IdleState::Bare)? {
            Some(frozen) => frozen,
            None => {
                let new = self.new_baseline(IdleState::Bare, Relearn::IfAbsent, &mut |_| ())?;
                new.freeze(&self.settings.baselines)?;
                new
            }
        };
        // A lease may have been taken meanwhile.
        if self.is_to_learn() {
            self.core.flowing().flows.set_baseline(baseline);
        }
        Ok(())
    }

    fn is_to_learn(&self) -> bool {
        let flowing = self.core.flowing();
        let is_good = |baseline: &Baseline| {
            baseline.is_known() && !baseline.is_refuted(&self.settings.baselines)
        };
        !flowing.flows.baseline().is_some_and(is_good) && !flowing.flows.is_measuring()
    }

    pub(super) fn frozen_for(&self, state: IdleState) -> Result<Option<Baseline>, BaselineError> {
        let (folder, probes) = (&self.settings.baselines, self.meter.probes());
        Baseline::newest(folder, probes, state, &self.facts)
    }

    /// A new baseline, as far as it can be had.
    fn new_baseline(
        &self,
        state: IdleState,
        anew: Relearn,
        progress: &mut dyn FnMut(Learning),
    ) -> Result<Baseline, BaselineError> {
        let probes = self.meter.probes();
        let given = Given {
            state,
            facts: self.facts.clone(),
            now: Timestamp::now(),
        };
        if let Some(none) = Baseline::not_needed(probes, given.clone()) {
            return Ok(none);
        }
        if let Some(watts) = self.settings.idle {
            Baseline::check_stated(probes, watts)?;
            return Ok(Baseline::configured(probes, watts, given));
        }
        let settings = LearnSettings {
            time: self.settings.baseline_time,
            most_watts: self.settings.idle_learn,
            state,
            facts: self.facts.clone(),
            load: self.load.clone(),
            effort: match anew {
                Relearn::IfPossible => Effort::GoOn,
                Relearn::IfAbsent | Relearn::Always => Effort::Insist,
            },
        };
        match learn(&self.meter, &settings, given.now, progress) {
            // A probe that cannot be read would leave the run unmeasured too.
            Err(BaselineError::Unstable { lowest, cause, .. })
                if anew == Relearn::IfPossible && !matches!(cause, Unstable::Unmeasured(_)) =>
            {
                Ok(Baseline::gross(probes, &lowest, given))
            }
            learned => learned,
        }
    }
}
