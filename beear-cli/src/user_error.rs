//! Errors for people: the fault and its remedy.

use thiserror::Error;

/// Exit code of a process that a signal has stopped. It is the shell's code for Ctrl-C, whichever
/// signal it was.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error that no library reports, with a hint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}")]
pub(crate) struct UserError {
    pub(crate) kind: UserErrorKind,
    what: String,
    pub(crate) hint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserErrorKind {
    Arguments,
    Input,
    NonFinite,
    OutOfBounds,
    Gate,
    TimeIsUp,
    Interrupted,
}

impl UserError {
    /// Creates an error of wrong arguments.
    pub(crate) fn arguments(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Arguments, what: what.into(), hint: hint.into() }
    }

    /// Creates an error of unusable input.
    pub(crate) fn input(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Input, what: what.into(), hint: hint.into() }
    }

    /// Creates an error of NaN or infinite numbers in training.
    pub(crate) fn non_finite(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::NonFinite, what: what.into(), hint: hint.into() }
    }

    /// Creates the error of a result outside its bounds, which must not count as a success.
    pub(crate) fn out_of_bounds(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::OutOfBounds, what: what.into(), hint: hint.into() }
    }

    /// Creates the error of a run whose time was up.
    pub(crate) fn time_is_up(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::TimeIsUp, what: what.into(), hint: hint.into() }
    }

    /// Creates the error of a run that was stopped on request.
    pub(crate) fn interrupted(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Interrupted, what: what.into(), hint: hint.into() }
    }

    /// Creates the error of a model that fails its gate and must not be released.
    pub(crate) fn gate(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Gate, what: what.into(), hint: hint.into() }
    }
}
