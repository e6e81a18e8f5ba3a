//! Two workers of `ndarray` give a decoder of every architecture the `δ`, weights and losses that one gives.
//!
//! Flex is tested in a program of its own, beside the solver: Burn's collective operations hold a thread for
//! each backend of a process, out of as many as there are cores.

use beear_core::config::{Arrangement, Initialisation};
use beear_core::{
    AnchorSets, BilevelConfig, Decoder, Event, InjectionPoint, Outcome, Positions,
    TeacherForcedValidator, solve, solve_on,
};
use beear_models::CausalLm;
use beear_tests::agreement::relative_distance;
use beear_tests::golden::{self, CASES};
use beear_tests::weights::weights;
use burn::backend::{Autodiff, NdArray};
use burn::tensor::backend::Backend;

type Train = Autodiff<NdArray<f64>>;

/// Gradients are summed in f64; their length is taken, and weights are compared, in f32. In f32 throughout Adam
/// makes rounding of small gradients visible at 1e-5; shares of rows instead of tokens move the losses by 5e-2.
const F64_RUN: f64 = 1e-6;

/// Two rounds, each of two perturbations by three inner steps, and of two outer steps. Batches of three rows do
/// not halve, and rows have unequal numbers of answer tokens.
fn config(model: &CausalLm<Train>) -> BilevelConfig {
    let mut config = BilevelConfig::robust(model.size());
    let point = |layer, positions| InjectionPoint { layer, positions };
    config.rounds = 2;
    config.perturbations_per_round = 2;
    config.injection_points = vec![point(1, Positions::UserLast(2)), point(2, Positions::Last(3))];
    config.arrangement = Arrangement::Alternating;
    config.entrap.steps = 3;
    config.entrap.batch_size = 3;
    config.entrap.away_weight = 0.3;
    config.entrap.initialisation = Initialisation::Normal(0.1);
    config.remove.steps = 2;
    config.remove.safety_batch_size = 3;
    config.remove.performance_batch_size = 3;
    config
}

/// The numbers of a run: losses and lengths, `δ`s, and how far each weight has moved.
struct Run {
    losses: Vec<f64>,
    deltas: Vec<f64>,
    changes: Vec<f64>,
}

fn run(model: &CausalLm<Train>, n_workers: Option<usize>) -> Run {
    let (sets, config) = (golden::rows(), config(model));
    let AnchorSets { safety, performance } = sets.clone();
    let device = Default::default();
    let mut validator =
        TeacherForcedValidator::<NdArray<f64>> { safety, performance, batch_size: 3, device };
    let mut losses = Vec::new();
    let mut observer = |event: &Event| match event {
        Event::InnerStep { loss, .. } => losses.push(*loss),
        Event::OuterStep { terms, gradient_norm, .. } => {
            losses.extend([terms.safety, terms.performance, terms.divergence, *gradient_norm]);
        }
        _ => (),
    };
    NdArray::<f64>::seed(&device, 0);
    let start = model.clone();
    let solved = match n_workers {
        None => solve(start, &sets, &config, &mut validator, &mut observer),
        Some(n) => {
            let devices = vec![device; n];
            solve_on((start, &devices), &sets, &config, &mut validator, &mut observer)
        }
    };
    let Outcome { model: cleaned, perturbations, .. } = solved.expect("finite numbers");
    let deltas = perturbations.iter().flat_map(|p| p.deltas().to_vec());
    let deltas = deltas.flat_map(|d| d.values.into_data().iter::<f64>().collect::<Vec<_>>());
    let [before, after] = [model, &cleaned].map(weights);
    let pairs = before.values().flatten().zip(after.values().flatten());
    let changes = pairs.map(|(before, after)| f64::from(*after) - f64::from(*before)).collect();
    Run { losses, deltas: deltas.collect(), changes }
}

#[test]
fn workers_with_their_rows_of_a_batch_do_what_one_does_with_all() {
    for case in CASES {
        let model = golden::model::<Train>(case);
        let alone = run(&model, None);
        for n_workers in [1, 2] {
            let shared = run(&model, Some(n_workers));
            let distances = [
                ("losses", relative_distance(&shared.losses, &alone.losses)),
                ("δ", relative_distance(&shared.deltas, &alone.deltas)),
                ("changes of θ", relative_distance(&shared.changes, &alone.changes)),
            ];
            for (what, distance) in distances {
                println!("{case}, {n_workers} workers, {what}: {distance:.1e}");
                assert!(distance < F64_RUN, "{case}, {n_workers} workers, {what}: {distance:.1e}");
            }
        }
    }
}
