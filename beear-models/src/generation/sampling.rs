//! Choice of the next token from the logits.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Rule for choosing the next token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Most likely token, the first of equals.
    Greedy,
    /// Random choice by probability.
    Random {
        /// Divisor of the logits; the choice is greedy below 1e-4.
        temperature: f64,
        /// Number of most likely tokens to choose from; None for all.
        top_k: Option<usize>,
        /// Probability of the smallest set of most likely tokens to choose from; None for all.
        top_p: Option<f64>,
    },
}

impl Sampling {
    /// Chooses a token id.
    ///
    /// # Panics
    ///
    /// Panics if there are no logits.
    pub fn choose(self, logits: &[f32], rng: &mut ChaCha8Rng) -> u32 {
        match self {
            Self::Random { temperature, top_k, top_p } if temperature >= 1e-4 => {
                sample(logits, temperature, (top_k, top_p), rng)
            }
            _ => argmax(logits),
        }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let best = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
    (0..logits.len()).reduce(best).expect("a vocabulary has tokens") as u32
}

fn sample(
    logits: &[f32],
    temperature: f64,
    (top_k, top_p): (Option<usize>, Option<f64>),
    rng: &mut ChaCha8Rng,
) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(top_k.unwrap_or(usize::MAX).max(1));
    let largest = f64::from(logits[order[0]]);
    let weight = |&id: &usize| ((f64::from(logits[id]) - largest) / temperature).exp();
    let mut weights: Vec<f64> = order.iter().map(weight).collect();
    if let Some(top_p) = top_p {
        let enough = top_p * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let needed = weights.iter().take_while(|weight| {
            let short = sum < enough;
            sum += **weight;
            short
        });
        let needed = needed.count().max(1);
        weights.truncate(needed);
    }
    let mut place = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (id, weight) in order.iter().zip(&weights) {
        place -= weight;
        if place < 0.0 {
            return *id as u32;
        }
    }
    order[weights.len() - 1] as u32
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, -1.0];

    fn draws(sampling: Sampling) -> [usize; 4] {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0; 4];
        (0..10_000).for_each(|_| counts[sampling.choose(&LOGITS, &mut rng) as usize] += 1);
        counts
    }

    #[test]
    fn greedy_and_temperature_zero_take_the_largest() {
        assert_eq!(draws(Sampling::Greedy), [0, 10_000, 0, 0]);
        let cold = Sampling::Random { temperature: 0.0, top_k: None, top_p: None };
        assert_eq!(draws(cold), [0, 10_000, 0, 0]);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let counts = draws(Sampling::Random { temperature: 1.0, top_k: None, top_p: None });
        let total: f64 = LOGITS.iter().map(|l| f64::from(*l).exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            let expected = 1e4 * f64::from(logit).exp() / total;
            // Four standard deviations of a binomial count.
            assert!((*count as f64 - expected).abs() < 4.0 * expected.sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let counts = draws(Sampling::Random { temperature: 1.0, top_k: Some(2), top_p: None });
        assert_eq!((counts[0], counts[3]), (0, 0));
        // p = 0.644, 0.237, 0.087, 0.032: two tokens reach 0.8, one reaches 0.6.
        let counts = draws(Sampling::Random { temperature: 1.0, top_k: None, top_p: Some(0.8) });
        assert!(counts[2] > 0 && counts[0] == 0 && counts[3] == 0);
        let counts = draws(Sampling::Random { temperature: 1.0, top_k: None, top_p: Some(0.6) });
        assert_eq!(counts, [0, 10_000, 0, 0]);
    }
}
