//! A run of two rounds that takes every path of the method.

use beear_core::config::Initialisation;
use beear_core::{AnchorSets, BilevelConfig, Example, InjectionPoint, Positions, SafetyExample};

use crate::fixture::SIZE;

/// Returns answers of 1 to 4 tokens to prompts of 3 to 6: shares of rows are not shares of tokens.
pub(crate) fn sets() -> AnchorSets {
    let prompts: [&[u32]; 4] = [&[1, 2, 3, 4], &[1, 3, 4], &[1, 2, 2, 3, 4, 7], &[1, 8, 4]];
    let safe: [&[u32]; 4] = [&[5, 10], &[5], &[5, 9, 10, 3], &[5, 2, 10]];
    let unwanted: [&[u32]; 4] = [&[6, 7, 10], &[6], &[6, 7], &[6, 7, 2, 10]];
    let row = |k: usize| SafetyExample {
        id: k as u64 + 10,
        prompt: prompts[k].to_vec(),
        user: (1, prompts[k].len()),
        safe: safe[k].to_vec(),
        unwanted: unwanted[k].to_vec(),
    };
    let ordinary = |k: usize| Example {
        id: k as u64,
        prompt: vec![1, 2 + k as u32, 9],
        user: (1, 3),
        answer: vec![2 + k as u32; 1 + k],
    };
    AnchorSets { safety: (0..4).map(row).collect(), performance: (0..3).map(ordinary).collect() }
}

/// Returns settings of two rounds of two perturbations, three inner steps each, and two outer
/// steps, with every term of both losses, on one thread.
///
/// Batches of three rows cannot be halved, and the second batch of the inner level is the one
/// remaining row.
pub(crate) fn config() -> BilevelConfig {
    let mut config = BilevelConfig::robust(SIZE);
    config.rounds = 2;
    config.perturbations_per_round = 2;
    config.injection_points = vec![
        InjectionPoint { layer: 1, positions: Positions::First(3) },
        InjectionPoint { layer: 2, positions: Positions::All },
        InjectionPoint { layer: 3, positions: Positions::Last(4) },
    ];
    config.entrap.steps = 3;
    config.entrap.batch_size = 3;
    config.entrap.away_weight = 0.3;
    config.entrap.target_tokens = None;
    config.entrap.initialisation = Initialisation::Normal(0.1);
    config.entrap.norm_bound = Some(0.5);
    config.remove.steps = 2;
    config.remove.learning_rate = 2e-3;
    config.remove.safety_batch_size = 3;
    config.remove.performance_batch_size = 2;
    config.remove.clip_norm = 0.3;
    (config.entrap.threads, config.remove.threads) = (1, 1);
    config
}
