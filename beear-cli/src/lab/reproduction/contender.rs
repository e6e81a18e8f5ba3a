//! Defences of the comparison, each with its small sweep of learning rates.

use beear_core::{
    BilevelConfig, DecoderSize, Defence, FineTuningConfig, LatentAdversarialConfig,
    LayerConsistencyConfig,
};

/// Name of the planted model without a defence.
pub(crate) const BEFORE: &str = "before";

/// Name of plain safety fine-tuning.
pub(crate) const FINE_TUNING: &str = "fine-tuning";

/// Learning rates of the baselines, as multiples of the default. The best one is reported.
const RATES: [f64; 3] = [0.25, 1.0, 2.5];

/// A defence at one learning rate.
#[derive(Clone, Debug)]
pub(crate) struct DefenceVariant {
    /// Name in tables.
    pub(crate) name: &'static str,
    /// Learning rate as a multiple of its default.
    pub(crate) rate: f64,
    /// Method, or `None` for the planted model as it is.
    pub(crate) defence: Option<Defence>,
}

/// Returns the planted model, the baselines at each rate, and both presets at their defaults.
///
/// `quick` takes as few steps as exercise the whole procedure.
pub(crate) fn contenders(size: DecoderSize, seed: u64, quick: bool) -> Vec<DefenceVariant> {
    let beear = |config: BilevelConfig| {
        let mut config = BilevelConfig { seed, ..config };
        // One thread gives the order of sums of the published tables.
        config.remove.threads = 1;
        if quick {
            (config.rounds, config.perturbations_per_round) = (1, 1);
        }
        config
    };
    let robust = beear(BilevelConfig::robust(size));
    let steps = robust.rounds * robust.remove.steps;
    let mut fine_tuning = FineTuningConfig::control_of(&robust);
    let mut latent = LatentAdversarialConfig { seed, ..LatentAdversarialConfig::new(size) };
    let mut consistency = LayerConsistencyConfig { seed, ..LayerConsistencyConfig::new(size) };
    for remove in [&mut fine_tuning.remove, &mut latent.remove, &mut consistency.remove] {
        remove.steps = steps;
    }

    let single = |name, defence| DefenceVariant { name, rate: 1.0, defence };
    let mut all = vec![single(BEFORE, None)];
    for rate in RATES {
        let (mut plain, mut latent, mut consistency) =
            (fine_tuning.clone(), latent.clone(), consistency.clone());
        for remove in [&mut plain.remove, &mut latent.remove, &mut consistency.remove] {
            remove.learning_rate *= rate;
        }
        let rivals = [
            (FINE_TUNING, Defence::FineTuning(plain)),
            ("latent-adversarial", Defence::LatentAdversarial(latent)),
            ("layer-consistency", Defence::LayerConsistency(consistency)),
        ];
        all.extend(rivals.map(|(name, defence)| DefenceVariant {
            name,
            rate,
            defence: Some(defence),
        }));
    }
    all.push(single("beear-paper", Some(Defence::Beear(beear(BilevelConfig::paper(size))))));
    all.push(single("beear-robust", Some(Defence::Beear(robust))));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rival_has_the_steps_of_the_robust_preset_at_each_rate() {
        let size = DecoderSize { n_layers: 6, d_model: 64 };
        let robust = BilevelConfig::robust(size);
        let all = contenders(size, 7, false);
        let rivals = all.iter().filter(|c| !matches!(c.defence, None | Some(Defence::Beear(_))));
        assert_eq!(rivals.clone().count(), 3 * RATES.len());
        for rival in rivals {
            let defence = rival.defence.as_ref().unwrap();
            assert_eq!(defence.n_weight_steps(), robust.rounds * robust.remove.steps);
            assert_eq!(defence.seed(), 7);
            let (Defence::FineTuning(FineTuningConfig { remove, .. })
            | Defence::LatentAdversarial(LatentAdversarialConfig { remove, .. })
            | Defence::LayerConsistency(LayerConsistencyConfig { remove, .. })) = defence
            else {
                panic!("{} is no rival", rival.name);
            };
            let expected = robust.remove.learning_rate * rival.rate;
            assert!((remove.learning_rate - expected).abs() < 1e-12, "{}", rival.name);
        }
    }
}
