//! Tests of trained weights saved in half precision: stochastic rounding preserves small changes on
//! average and leaves untrained weights unchanged.

use burn::module::ModuleMapper;
use half::bf16;

use super::*;

/// Change of every trained weight: less than half the distance of bf16 numbers at 0.1.
const CHANGE: f32 = 1e-4;

/// Number of folders, each written with its own seed.
const N_SEEDS: u64 = 100;

/// Number of standard errors: 4 are exceeded by chance once in 16 000.
const N_STANDARD_ERRORS: f64 = 4.0;

/// Mapper that adds [`CHANGE`] to every weight, with alternating sign.
struct Change(usize);

impl<B: Backend> ModuleMapper<B> for Change {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| {
            let mut data = tensor.to_data();
            let device = tensor.device();
            for value in data.as_mut_slice::<f32>().unwrap() {
                *value += if self.0.is_multiple_of(2) { CHANGE } else { -CHANGE };
                self.0 += 1;
            }
            Tensor::from_data(data, &device)
        })
    }
}

/// Saves a folder of bf16 weights; returns its model, and the same model with layer 1 trained.
fn trained() -> (TempDir, PathBuf, [CausalLm<Cpu>; 2]) {
    let (dir, path, _) = saved(|config| (config.d_model, config.d_ff) = (48, 60));
    change(&path, |tensors| {
        for (_, dtype, _, bytes) in tensors {
            let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let halves = values.map(|value| bf16::from_f32(value).to_le_bytes());
            (*dtype, *bytes) = (Dtype::BF16, halves.flatten().collect());
        }
    });
    let before = load(&path).unwrap();
    let mut after = before.clone();
    let block = after.model.layers.pop().unwrap();
    after.model.layers.push(block.map(&mut Change(0)));
    (dir, path, [before, after])
}

/// Returns the values of every weight.
fn values(model: &CausalLm<Cpu>) -> Vec<f32> {
    weights(model).iter().flat_map(|data| data.iter::<f32>().collect::<Vec<_>>()).collect()
}

/// Saves `model` to a folder and loads it again.
fn written(model: &CausalLm<Cpu>, path: &Path, seed: u64) -> CausalLm<Cpu> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    save(model, &Checkpoint::open(path).unwrap(), &out, seed).unwrap();
    load(&out).unwrap()
}

#[test]
fn small_changes_arrive_on_average_and_rounding_to_nearest_loses_them() {
    let (_dir, path, [before, after]) = trained();
    let (before, wanted) = (values(&before), values(&after));
    let change: Vec<f64> =
        wanted.iter().zip(&before).map(|(w, b)| f64::from(*w) - f64::from(*b)).collect();
    let norm = change.iter().map(|c| c * c).sum::<f64>();
    let error_of = |saved: &[f64]| {
        let rests = saved.iter().zip(&wanted).map(|(s, w)| s - f64::from(*w));
        (rests.map(|rest| rest * rest).sum::<f64>() / norm).sqrt()
    };
    // Projection on the change: 1 if all of it is preserved.
    let arrived = |saved: &[f64]| {
        let parts =
            saved.iter().zip(&before).zip(&change).map(|((s, b), c)| (s - f64::from(*b)) * c);
        parts.sum::<f64>() / norm
    };
    let moved = |saved: &[f64]| {
        let pairs = saved.iter().zip(&before).zip(&change).filter(|(_, c)| **c != 0.0);
        let (n, n_moved) = pairs.fold((0_usize, 0_usize), |(n, n_moved), ((s, b), _)| {
            (n + 1, n_moved + usize::from(s.total_cmp(&f64::from(*b)).is_ne()))
        });
        n_moved as f64 / n as f64
    };
    let nearest: Vec<f64> = wanted.iter().map(|w| f64::from(bf16::from_f32(*w).to_f32())).collect();
    let mut sum = vec![0.0; wanted.len()];
    let (mut parts, mut shares) = (Vec::new(), Vec::new());
    for seed in 0..N_SEEDS {
        let saved: Vec<f64> =
            values(&written(&after, &path, seed)).into_iter().map(f64::from).collect();
        parts.push(arrived(&saved));
        shares.push(moved(&saved));
        sum.iter_mut().zip(saved).for_each(|(sum, value)| *sum += value);
    }
    let mean: Vec<f64> = sum.into_iter().map(|sum| sum / N_SEEDS as f64).collect();

    let n = N_SEEDS as f64;
    let mean_part = parts.iter().sum::<f64>() / n;
    let variance = parts.iter().map(|p| (p - mean_part).powi(2)).sum::<f64>() / (n - 1.0);
    let standard_error = (variance / n).sqrt();
    assert!(
        (mean_part - 1.0).abs() <= N_STANDARD_ERRORS * standard_error,
        "{mean_part} ± {standard_error} of the change arrives"
    );
    let share = shares.iter().sum::<f64>() / n;
    println!(
        "nearest: error {:.3}, arrived {:.3}, moved {:.3}; by chance, mean of {N_SEEDS}: error {:.3}, arrived \
         {mean_part:.4} ± {standard_error:.4}, moved {share:.3}",
        error_of(&nearest),
        arrived(&nearest),
        moved(&nearest),
        error_of(&mean),
    );
    // The errors of independent roundings cancel: the mean of 100 has a tenth of the error of one.
    assert!(error_of(&mean) < error_of(&nearest) / 3.0);
    assert!((arrived(&nearest) - 1.0).abs() > 10.0 * standard_error, "{}", arrived(&nearest));
}

#[test]
fn what_was_not_trained_is_the_suspects_bit_for_bit() {
    let (dir, path, [before, after]) = trained();
    let (source, out) = (Checkpoint::open(&path).unwrap(), dir.path().join("out"));
    save(&after, &source, &out, SEED).unwrap();
    let file = "model.safetensors";
    let (old, new) = (entries(&path.join(file)), entries(&out.join(file)));
    for (old, new) in old.iter().zip(&new) {
        let is_trained = old.0.contains("layers.1.");
        assert!(is_trained || old == new, "{}", old.0);
        // Some of the thousands of weights of a matrix change; a norm has too few to be sure.
        assert!(!old.0.contains("layers.1.mlp") || old != new, "{}", old.0);
    }
    // A model whose weights are exact in their type does not change, whatever the seed.
    for seed in [0, SEED] {
        assert_eq!(values(&written(&before, &path, seed)), values(&before));
        let once = load(&out).unwrap();
        assert_eq!(values(&written(&once, &path, seed)), values(&once));
    }
}

#[test]
fn the_same_seed_writes_the_same_bytes_and_another_writes_others() {
    let (dir, path, [_, after]) = trained();
    let source = Checkpoint::open(&path).unwrap();
    let bytes = |name: &str, seed| {
        let out = dir.path().join(name);
        save(&after, &source, &out, seed).unwrap();
        fs::read(out.join("model.safetensors")).unwrap()
    };
    let first = bytes("a", SEED);
    // Rounding depends on the index of a value, not on the thread that writes it.
    let threads: Vec<_> = std::thread::scope(|scope| {
        let run = |name: &'static str| scope.spawn(move || bytes(name, SEED));
        ["b", "c"].map(run).map(|thread| thread.join().unwrap()).into()
    });
    assert!(threads.iter().all(|other| *other == first));
    assert_ne!(bytes("d", SEED + 1), first);
}
