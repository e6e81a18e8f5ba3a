//! BEEAR's bi-level optimisation: find and remove safety backdoors in hidden states.
//!
//! A backdoored model abandons its safe behaviour when a secret trigger appears. Such a trigger drifts
//! the hidden states in a nearly uniform direction, so BEEAR searches there: the inner level
//! ([`entrap`]) finds a universal [`Perturbation`] `δ` at a layer boundary that makes the model
//! misbehave; the outer level ([`Remover`]) trains the weights to behave under it. [`solve`]
//! alternates them. The defender never knows the trigger. The [rivals](rival) it is compared with
//! stand beside it behind one interface, [`Defence`].
//!
//! The crate is generic over [`burn::tensor::backend::Backend`] and over the model: bring any
//! [`Decoder`]. It does no IO, reads no clock and prints nothing; an [`Observer`] hears
//! [`Event`]s.
//!
//! Zeng et al., [BEEAR](https://arxiv.org/abs/2406.17092), EMNLP 2024.

pub mod batch;
pub mod cat;
pub mod config;
pub mod decoder;
pub mod defence;
pub mod drift;
pub mod error;
pub mod event;
pub mod example;
mod hidden_norms;
pub mod hidden_states;
pub mod objective;
pub mod past;
pub mod perturbation;
pub mod principal_components;
pub mod randomness;
pub mod rival;
pub mod sampler;
pub mod scan;
pub mod site;
pub mod snapshot;
pub mod solver;
pub mod testing;
pub mod threads;
pub mod validation;

pub use batch::Batch;
pub use config::{BilevelConfig, EntrapConfig, RemoveConfig};
pub use decoder::{Decoder, DecoderSize};
pub use defence::Defence;
pub use drift::{Drift, DriftStatistics};
pub use error::Error;
pub use event::{Event, Observer};
pub use example::{AnchorSets, Example, SafetyExample};
pub use past::{Context, Past};
pub use perturbation::{Delta, Perturbation, Spot};
pub use principal_components::PrincipalComponents;
pub use rival::fine_tuning::FineTuningConfig;
pub use rival::latent_adversarial::LatentAdversarialConfig;
pub use rival::layer_consistency::LayerConsistencyConfig;
pub use site::Site;
pub use snapshot::{NamedTensor, Progress, Saved, Snapshot};
pub use solver::TrainableDecoder;
pub use solver::bilevel::{Outcome, RoundRecord, Stopped, resume, solve};
#[cfg(feature = "collective")]
pub use solver::data_parallel::{resume_on, solve_on};
pub use solver::inner::{Entrapment, entrap};
pub use solver::outer::Remover;
pub use validation::{
    Assessment, BoundCheck, ForbiddenOutcome, OrdinaryOutcome, SuspectFault,
    TeacherForcedValidator, ValidationMetrics, ValidationSummary, Validator, Verdict,
};
