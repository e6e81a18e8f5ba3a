//! Memory does not grow with the number of steps. A test binary of its own: others would move the figures.
#![cfg(target_os = "linux")]

use beear_core::config::OptimizerState;
use beear_core::{
    BilevelConfig, Decoder, Delta, Event, InjectionPoint, Perturbation, Positions, RemoveConfig,
    Remover,
};
use beear_tests::golden;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Distribution, Tensor};

const N_STEPS: usize = 200;

/// Steps whose memory is averaged, at the start, after the allocator has settled, and at the end.
const WINDOW: usize = 40;

/// Share of the memory by which it may grow from the one to the other.
const SLOPE: f64 = 0.01;

/// Memory of this process that is resident, in KiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("of every process");
    let number = line.trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}

/// Resident memory after each outer step.
fn of_steps(change: impl Fn(&mut RemoveConfig)) -> Vec<f64> {
    let model = golden::model::<Autodiff<Flex>>("llama3-rope");
    let sets = golden::rows();
    let mut config = BilevelConfig::robust(model.size()).remove;
    config.steps = N_STEPS;
    config.safety_batch_size = 4;
    config.performance_batch_size = 4;
    change(&mut config);
    let delta = |layer| Delta {
        point: InjectionPoint { layer, positions: Positions::Last(2) },
        values: Tensor::random(
            [2, model.d_model()],
            Distribution::Normal(0.0, 0.1),
            &Default::default(),
        ),
    };
    let found = [1, 2].map(|layer| Perturbation::new(vec![delta(layer)]));
    let mut memory = Vec::with_capacity(N_STEPS);
    let mut observer = |event: &Event| {
        if matches!(event, Event::OuterStep { .. }) {
            memory.push(resident());
        }
    };
    let mut remover = Remover::new(&model, &sets, &config, N_STEPS, 3);
    remover.remove(model, &found, &sets, &mut observer).expect("finite numbers");
    memory
}

fn assert_level(memory: &[f64]) {
    assert_eq!(memory.len(), N_STEPS);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (early, late) = (mean(&memory[WINDOW..2 * WINDOW]), mean(&memory[N_STEPS - WINDOW..]));
    println!("{early:.0} KiB, then {late:.0} KiB");
    assert!(late <= early * (1.0 + SLOPE), "{early:.0} KiB grew to {late:.0} KiB");
}

/// One test: what runs beside it would count too.
#[test]
fn two_hundred_outer_steps_leave_memory_as_it_was() {
    assert_level(&of_steps(|_| {}));
    assert_level(&of_steps(|config| {
        config.activation_checkpointing = true;
        config.optimizer_state = OptimizerState::EightBit;
    }));
}
