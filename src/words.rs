//! The words that receipts share with the rooms that mean something by them: each is one enum, and
//! each variant has one text.

use crate::text::words;

words! {
    /// How a joule is known, weakest first.
    Provenance {
        /// From a trace with known truth; for tests and demonstrations.
        Simulated = "simulated",
        /// From a recorded log.
        Replayed = "replayed",
        /// Computed from processor time or utilisation; no sensor was read.
        Modelled = "modelled",
        /// Integrated from instantaneous power readings.
        PowerInstant = "power-instant",
        /// Integrated from averaged power readings.
        PowerAverage = "power-average",
        /// Difference of a hardware energy counter.
        Counter = "counter",
    }

    /// How much a baseline can be trusted.
    BaselineLabel {
        /// Learned from a minute of idle time or more.
        Full = "full",
        /// Learned in seconds, good enough to start.
        Short = "short",
        /// Not learned: a person said so.
        Configured = "configured",
        /// Not learned: other work does not show in these probes, so there is nothing to take off.
        NotNeeded = "not-needed",
        /// Could not be learned: nothing is taken off, though something should be.
        Gross = "gross",
    }

    /// What was open while idle power was learned.
    IdleState {
        /// No accelerator context of this program.
        Bare = "bare",
        /// A CUDA context is open.
        Armed = "armed",
    }

    /// Who says how much power a processor draws.
    PowerOrigin {
        /// `cpu_watts` in the settings.
        Settings = "settings",
        /// The power limit that the kernel names.
        Kernel = "kernel",
        /// A table of processors.
        Table = "table",
        /// Nobody.
        Guess = "guess",
    }

    /// Which test decides.
    Rule {
        /// Paired t and skew-corrected t must both exceed the quantile.
        TSkew = "paired-t-skew/1",
        /// The original's: delta of at least `min_delta`, whatever the noise.
        Threshold = "threshold/1",
    }

    /// What a loss of the gate belongs to.
    Unit {
        /// A row of the split.
        Row = "row",
        /// A token of its target.
        Token = "token",
    }

    /// Who holds a split.
    Custody {
        /// The machine that trains.
        Local = "local",
        /// Another machine or user, which the trainer cannot read from.
        Custodian = "custodian",
        /// Sealed, and opened later for everybody.
        RevealedLater = "revealed-later",
    }

    /// What computes.
    Backend {
        /// The program's own kernels, on the processor.
        Kernels = "kernels",
        /// burn on the processor: the reference that the kernels are tested against.
        BurnFlex = "burn-flex",
        /// burn on an NVIDIA card.
        BurnCuda = "burn-cuda",
    }

    /// Why training ended.
    Stopped {
        /// The declared number of steps was done.
        MaxSteps = "max-steps",
        /// More steps would have lowered the improvement per joule.
        Eta = "eta",
        /// The budget pays for no other step.
        Budget = "budget",
        /// It was cut short.
        Interrupted = "interrupted",
    }

    /// How the losses of the model before are known.
    KnownBy {
        /// It was evaluated on the gate split.
        Evaluation = "evaluation",
        /// It has no head, so it says how frequent the classes are among the training rows.
        ClassShares = "class-shares",
    }

    /// What is to be said of joules.
    Caution {
        /// There were fewer than 60 updates of the slowest sensor.
        TooShort = "too-short",
    }

    /// Which bucket joules were taken from.
    PaidBy {
        /// The project's own.
        Project = "project",
        /// That of an agent, which lends to others too.
        Agent = "agent",
    }

    /// Who stands for a measured result, in the words of in-toto's predicate for evaluations.
    Assurance {
        /// Who made it.
        SelfAttested = "self_attested",
        /// Somebody else, who measured it alone.
        ThirdParty = "third_party",
        /// Somebody else, who came to the same result.
        Reproduced = "reproduced",
        /// A sealed machine.
        EnclaveAttested = "enclave_attested",
    }

    /// How a check of another receipt ended.
    Outcome {
        /// It holds.
        Passed = "passed",
        /// It does not.
        Failed = "failed",
    }
}

impl Provenance {
    /// Relative error of the source itself, one standard deviation. Stated, not measured:
    /// NVIDIA documents 5 % for its boards, RAPL is validated to a few percent against wall
    /// meters, and a model of the processor is a guess.
    pub const fn gain_sigma(self) -> f64 {
        match self {
            Self::Counter | Self::PowerAverage => 0.05,
            Self::PowerInstant => 0.10,
            Self::Modelled => 0.50,
            Self::Simulated | Self::Replayed => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_written_as_it_is_read_and_no_other_is_read() {
        for word in Provenance::ALL {
            assert_eq!(word.as_str().parse(), Ok(*word));
            let json = serde_json::to_string(word).unwrap();
            assert_eq!(serde_json::from_str::<Provenance>(&json).unwrap(), *word);
        }
        let error = "Counter".parse::<Provenance>().unwrap_err().to_string();
        assert!(
            error.ends_with("power-instant, power-average, counter"),
            "{error}"
        );
        assert!(Provenance::Simulated < Provenance::Modelled);
        assert!(Provenance::PowerAverage < Provenance::Counter);
    }
}
