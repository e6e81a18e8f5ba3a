//! The errors that a person reads: what is wrong, and what to do about it.

use thiserror::Error;

/// Exit code of a process that a signal has stopped: that of shells for Ctrl-C, whichever signal it was.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error that no library reports, and its remedy.
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
    /// Wrong arguments.
    pub(crate) fn arguments(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Arguments, what: what.into(), hint: hint.into() }
    }

    /// Data that cannot be used.
    pub(crate) fn input(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Input, what: what.into(), hint: hint.into() }
    }

    /// Training that left the range of numbers.
    pub(crate) fn non_finite(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::NonFinite, what: what.into(), hint: hint.into() }
    }

    /// A result that must not pass for a success.
    pub(crate) fn out_of_bounds(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::OutOfBounds, what: what.into(), hint: hint.into() }
    }

    /// A run whose time was up.
    pub(crate) fn time_is_up(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::TimeIsUp, what: what.into(), hint: hint.into() }
    }

    /// A run that was asked to stop.
    pub(crate) fn interrupted(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Interrupted, what: what.into(), hint: hint.into() }
    }

    /// A model that must not be released.
    pub(crate) fn gate(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: UserErrorKind::Gate, what: what.into(), hint: hint.into() }
    }
}
