//! A run resumed from each of its checkpoints, compared byte for byte with the run that never stopped. Crates take
//! this file in by its path, in their tests only.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use beear_core::perturbation::to_safetensors;
use beear_core::{
    AnchorSets, Defence, Event, Observer, Outcome, Progress, RemoveConfig, Saved, Snapshot,
    TeacherForcedValidator, TrainableDecoder,
};
use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

type Train = Autodiff<Flex>;

/// A run that can be begun, and resumed, any number of times.
pub(crate) struct Case<'a, M> {
    pub(crate) name: &'a str,
    pub(crate) defence: &'a Defence,
    /// The suspect, with other parameter ids each time, as another process has them.
    pub(crate) model: &'a dyn Fn() -> M,
    pub(crate) sets: &'a AnchorSets,
    pub(crate) validator: &'a dyn Fn() -> TeacherForcedValidator<Flex>,
}

impl<M: TrainableDecoder<Train>> Case<'_, M> {
    /// Asserts that from each checkpoint the rest of the run is that of the run that never stopped, also at half
    /// the learning rates: every later checkpoint and event, and the outcome. Returns the number of checkpoints.
    pub(crate) fn assert_resumes_exactly(&self) -> usize {
        let whole = self.run(None);
        for (k, checkpoint) in whole.checkpoints.iter().enumerate() {
            self.run(Some(checkpoint)).assert_rest_of(&whole, k, self.name);
            let halved = checkpoint.at_half_the_rates();
            let rolled_back = self.run(Some(&halved));
            let first = &rolled_back.checkpoints[0];
            assert_eq!(first.progress, halved.progress, "{}, rolled back to {k}", self.name);
            assert!(first.tensors == halved.tensors, "{}, rolled back to {k}", self.name);
            if let Some(checkpoint) = rolled_back.checkpoints.get(1) {
                self.run(Some(checkpoint)).assert_rest_of(&rolled_back, 1, self.name);
            }
        }
        whole.checkpoints.len()
    }

    fn run(&self, from: Option<&Checkpoint>) -> Finished {
        let (mut recorder, mut validator, model) =
            (Recorder::default(), (self.validator)(), (self.model)());
        let outcome = match from {
            None => self.defence.run(model, self.sets, &mut validator, &mut recorder),
            Some(checkpoint) => {
                let (progress, tensors) = checkpoint.read();
                let tensors = |name: &str| tensors.get(name).cloned();
                let saved = Saved { progress: &progress, tensors: &tensors };
                self.defence.resume((model, saved), self.sets, &mut validator, &mut recorder)
            }
        };
        let outcome = outcome.unwrap_or_else(|stopped| panic!("{}: {stopped}", self.name));
        let Recorder { events, checkpoints } = recorder;
        Finished { events, checkpoints, outcome: bytes_of(&outcome) }
    }
}

/// `defence` with few steps on few rows; where and how it acts is left alone.
pub(crate) fn shortened(mut defence: Defence) -> Defence {
    match &mut defence {
        Defence::Beear(config) => {
            config.rounds = 2;
            config.perturbations_per_round = config.perturbations_per_round.min(3);
            // The second batch is the one row left over.
            (config.entrap.steps, config.entrap.batch_size) = (3, 3);
        }
        Defence::LatentAdversarial(config) => {
            // Of two steps under one attack, the state between them holds the attack.
            (config.attack.steps, config.steps_per_attack) = (2, 2);
        }
        Defence::LayerConsistency(config) => config.samples = 5,
        Defence::FineTuning(_) => {}
    }
    let steps = if let Defence::Beear(_) = defence { 2 } else { 5 };
    with_remove(defence, |remove| RemoveConfig {
        steps,
        safety_batch_size: 3,
        performance_batch_size: 2,
        threads: 1,
        ..remove
    })
}

/// `defence` that trains the weights as `change` says.
pub(crate) fn with_remove(
    mut defence: Defence,
    change: impl Fn(RemoveConfig) -> RemoveConfig,
) -> Defence {
    let remove = match &mut defence {
        Defence::Beear(config) => &mut config.remove,
        Defence::LatentAdversarial(config) => &mut config.remove,
        Defence::LayerConsistency(config) => &mut config.remove,
        Defence::FineTuning(config) => &mut config.remove,
    };
    *remove = change(remove.clone());
    defence
}

/// A snapshot in the bytes that files would hold.
#[derive(Clone)]
struct Checkpoint {
    progress: String,
    tensors: Vec<u8>,
    /// Events before it.
    n_events: usize,
}

impl Checkpoint {
    fn write(snapshot: &Snapshot, n_events: usize) -> Self {
        let tensors: Vec<_> =
            snapshot.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.data())).collect();
        let views: Vec<_> = tensors.iter().map(|(name, data)| (*name, view(data))).collect();
        let names = views.iter().map(|(name, _)| name).collect::<HashSet<_>>();
        assert_eq!(names.len(), views.len(), "each name once");
        let tensors = safetensors::serialize(views, None).expect("tensors of known types");
        let progress = serde_json::to_string(&snapshot.progress).expect("numbers");
        Self { progress, tensors, n_events }
    }

    fn read(&self) -> (Progress, HashMap<String, TensorData>) {
        let file = SafeTensors::deserialize(&self.tensors).expect("a file of tensors");
        let data = |(name, view): (String, TensorView<'_>)| {
            let (dtype, _) = *TYPES.iter().find(|(_, t)| *t == view.dtype()).expect("a known type");
            let bytes = view.data().to_vec();
            (name, TensorData::from_bytes_vec(bytes, view.shape().to_vec(), dtype))
        };
        let tensors = file.tensors().into_iter().map(data).collect();
        (serde_json::from_str(&self.progress).expect("numbers"), tensors)
    }

    fn at_half_the_rates(&self) -> Self {
        let (mut progress, _) = self.read();
        progress.halve_rates();
        let progress = serde_json::to_string(&progress).expect("numbers");
        Self { progress, ..self.clone() }
    }
}

const TYPES: [(DType, Dtype); 4] = [
    (DType::F32, Dtype::F32),
    (DType::BF16, Dtype::BF16),
    (DType::I8, Dtype::I8),
    (DType::U8, Dtype::U8),
];

fn view(data: &TensorData) -> TensorView<'_> {
    let (_, dtype) = *TYPES.iter().find(|(t, _)| *t == data.dtype).expect("a known type");
    let shape = data.shape.as_slice().to_vec();
    TensorView::new(dtype, shape, &data.bytes).expect("as many bytes as the shape has")
}

/// Records every event, and a checkpoint before the first step and after each.
#[derive(Default)]
struct Recorder {
    events: Vec<String>,
    checkpoints: Vec<Checkpoint>,
}

impl Observer for Recorder {
    fn notify(&mut self, event: &Event) {
        self.events.push(serde_json::to_string(event).expect("numbers"));
    }

    fn after_step(&mut self, snapshot: &dyn Fn() -> Snapshot) -> ControlFlow<()> {
        self.checkpoints.push(Checkpoint::write(&snapshot(), self.events.len()));
        ControlFlow::Continue(())
    }
}

/// A run that has come to its end.
struct Finished {
    events: Vec<String>,
    checkpoints: Vec<Checkpoint>,
    /// Weights, perturbations and numbers of the outcome.
    outcome: Vec<Vec<u8>>,
}

impl Finished {
    /// Asserts that this is `whole` from its checkpoint `k` on.
    fn assert_rest_of(&self, whole: &Self, k: usize, name: &str) {
        let rest = &whole.checkpoints[k..];
        assert_eq!(self.checkpoints.len(), rest.len(), "{name}, resumed from {k}: steps left");
        for (step, (found, expected)) in self.checkpoints.iter().zip(rest).enumerate() {
            let step = step + k;
            assert_eq!(found.progress, expected.progress, "{name}, resumed from {k}, step {step}");
            let are_same = found.tensors == expected.tensors;
            assert!(are_same, "{name}, resumed from {k}, step {step}: the tensors differ");
        }
        let events = &whole.events[rest[0].n_events..];
        assert_eq!(self.events, events, "{name}, resumed from {k}");
        assert!(self.outcome == whole.outcome, "{name}, resumed from {k}: the outcomes differ");
    }
}

fn bytes_of<M: Module<Train>>(outcome: &Outcome<Train, M>) -> Vec<Vec<u8>> {
    let mut weights = Weights(Vec::new());
    outcome.model.visit(&mut weights);
    let deltas = to_safetensors(&outcome.perturbations).expect("f32 matrices");
    let numbers = (outcome.kept_round, &outcome.initial, &outcome.rounds);
    let numbers = serde_json::to_vec(&numbers).expect("numbers");
    weights.0.into_iter().chain([deltas, numbers]).collect()
}

struct Weights(Vec<Vec<u8>>);

impl<B: Backend> ModuleVisitor<B> for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push(param.val().into_data().bytes.to_vec());
    }
}
