//! How a command ended: the exit status, and one line that says why.

use std::process::ExitCode;

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything expected was met: status 0.
    Met,
    /// An expectation was not met: status 1.
    NotMet(String),
    /// The run proves nothing, or the input is bad: status 2.
    Invalid(String),
}

impl Outcome {
    /// Bad input, or a run that proves nothing.
    pub(crate) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    /// Prints the line and gives the exit status.
    pub(crate) fn exit(self) -> ExitCode {
        let (status, why) = match self {
            Self::Met => return ExitCode::SUCCESS,
            Self::NotMet(why) => (1, why),
            Self::Invalid(why) => (2, why),
        };
        eprintln!("longhaul: {}", one_line(&why));
        ExitCode::from(status)
    }
}

/// The text in one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
