//! BEEAR's bi-level optimisation: find and remove safety backdoors in hidden states.
//!
//! A backdoored model abandons its safe behaviour when a secret trigger appears. Such a trigger
//! drifts the hidden states in a nearly uniform direction, so BEEAR searches there: the inner level
//! ([`entrap`]) finds a universal [`Perturbation`] `δ` at a layer boundary that makes the model
//! misbehave; the outer level ([`Remover`]) trains the weights to behave under it. [`solve`]
//! alternates them. The defender never knows the trigger. [`Defence`] is the common interface of
//! BEEAR and the [baselines] it is compared with.
//!
//! The crate is generic over [`burn::tensor::backend::Backend`] and over the model: it accepts any
//! [`Decoder`]. It does no IO, reads no clock and prints nothing; an [`Observer`] receives
//! [`Event`]s.
//!
//! Zeng et al., [BEEAR](https://arxiv.org/abs/2406.17092), EMNLP 2024.

pub mod analysis;
pub mod baselines;
pub mod batch;
pub mod config;
pub mod decoder;
pub mod error;
pub mod event;
pub mod method;
pub mod objective;
pub mod optim;
pub mod parallel;
pub mod perturbation;
pub mod positions;
pub mod randomness;
mod state;
pub mod testing;
pub mod validation;

pub use analysis::drift::{Drift, DriftStatistics};
pub use analysis::principal_components::PrincipalComponents;
pub use baselines::defence::Defence;
pub use baselines::fine_tuning::FineTuningConfig;
pub use baselines::latent_adversarial::LatentAdversarialConfig;
pub use baselines::layer_consistency::LayerConsistencyConfig;
pub use batch::Batch;
pub use batch::example::{AnchorSets, Example, SafetyExample};
pub use config::{BilevelConfig, EntrapConfig, RemoveConfig};
pub use decoder::{Context, Decoder, DecoderSize, PrefixCache, TrainableDecoder};
pub use error::{Error, SuspectFault};
pub use event::{Event, Observer};
pub use method::bilevel::{Outcome, Stopped, resume, solve};
#[cfg(feature = "collective")]
pub use method::data_parallel::{resume_on, solve_on};
pub use method::inner::{Entrapment, entrap};
pub use method::outer::Remover;
pub use perturbation::{Delta, InjectionPoint, Perturbation};
pub use positions::Positions;
pub use state::progress::{Progress, RoundRecord};
pub use state::snapshot::{NamedTensor, Saved, Snapshot, TensorSource};
pub use validation::{
    Assessment, BoundCheck, ForbiddenOutcome, OrdinaryOutcome, TeacherForcedValidator,
    ValidationMetrics, ValidationSummary, Validator, Verdict,
};
