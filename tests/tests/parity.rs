//! Our decoders compute what transformers computes: `goldens/make_parity.py` made the checkpoints
//! and the expectations, `goldens/make_lora.py` the adapters.

use std::sync::Mutex;

use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::{
    Batch, Context, Decoder, Delta, Example, InjectionPoint, Perturbation, Positions, SafetyExample,
};
use beear_models::{
    BatchLimit, Checkpoint, GenerateConfig, Generation, Prompt, Sampling, generate,
    generate_with_progress, log_likelihoods,
};
use beear_tests::agreement::{F32_AGREEMENT, assert_agrees, relative_difference};
use beear_tests::golden::{self, CASES, Golden};
use beear_tests::weights::gradients;
use burn::backend::{Autodiff, Flex, NdArray};
use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

type Cpu = Flex;
type Train = Autodiff<Cpu>;

const SIDES: [&str; 2] = ["right", "left"];

/// Where `make_parity.py` adds its perturbation.
const POINT: InjectionPoint = InjectionPoint { layer: 1, positions: Positions::Last(3) };

fn expected(case: &str) -> Golden {
    Golden::read(&format!("{case}/expected.safetensors"))
}

fn unwanted() -> Vec<Example> {
    golden::rows().safety.iter().map(|row| row.toward_unwanted(None)).collect()
}

/// The tokens as transformers was given them, the padding mask, and which tokens are real.
type Padded<B> = (Tensor<B, 2, Int>, Tensor<B, 2, Bool>, Vec<i64>);

fn padded<B: Backend>(expected: &Golden, side: &str) -> Padded<B> {
    let device = Default::default();
    let tokens = expected.integers(&format!("{side}.tokens"));
    let shape = [tokens.len(), tokens[0].len()];
    let attended = expected.integers(&format!("{side}.mask")).concat();
    let mask_pad: Vec<bool> = attended.iter().map(|seen| *seen == 0).collect();
    let real = (0_i64..).zip(&mask_pad).filter(|(_, pad)| !**pad).map(|(at, _)| at).collect();
    let tokens = Tensor::from_data(TensorData::new(tokens.concat(), shape), &device);
    (tokens, Tensor::from_data(TensorData::new(mask_pad, shape), &device), real)
}

/// The rows of real tokens, one after another.
fn real_values<B: Backend>(values: Tensor<B, 3>, real: &[i64]) -> Vec<f32> {
    let device = values.device();
    let index =
        Tensor::<B, 1, Int>::from_data(TensorData::new(real.to_vec(), [real.len()]), &device);
    values.flatten::<2>(0, 1).select(0, index).into_data().iter::<f32>().collect()
}

fn logits<B: Backend>(case: &str, side: &str) -> Vec<f32> {
    let (tokens, mask_pad, real) = padded::<B>(&expected(case), side);
    real_values(golden::model::<B>(case).forward(tokens, &mask_pad), &real)
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

#[test]
fn logits_agree_whichever_side_is_padded() {
    for case in CASES {
        for side in SIDES {
            let name = format!("{side}.logits");
            assert_agrees(&logits::<Cpu>(case, side), &expected(case), &name);
            assert_agrees(&logits::<NdArray>(case, side), &expected(case), &name);
        }
        let [right, left] = SIDES.map(|side| logits::<Cpu>(case, side));
        assert!(relative_difference(&left, &right) <= F32_AGREEMENT, "{case}");
    }
}

#[test]
fn hidden_states_agree_at_every_boundary() {
    for case in CASES {
        let (model, expected) = (golden::model::<Cpu>(case), expected(case));
        for side in SIDES {
            let (tokens, mask_pad, real) = padded::<Cpu>(&expected, side);
            let embedded = model.embed(tokens);
            for l in 0..=model.n_layers() {
                let hidden = model.forward_layers(embedded.clone(), &mask_pad, 0..l);
                let name = format!("{side}.hidden.{l}");
                assert_agrees(&real_values(hidden, &real), &expected, &name);
            }
        }
    }
}

#[test]
fn rows_are_padded_as_the_golden_ones() {
    let batch = Batch::<Cpu>::new(&unwanted(), &Default::default());
    let (tokens, mask_pad, _) = padded::<Cpu>(&expected(CASES[0]), "right");
    batch.tokens.into_data().assert_eq(&tokens.into_data(), true);
    batch.mask_pad.into_data().assert_eq(&mask_pad.into_data(), true);
}

#[test]
fn the_loss_and_the_gradient_of_every_weight_agree() {
    for case in CASES {
        let (model, expected) = (golden::model::<Train>(case), expected(case));
        let batch = Batch::new(&unwanted(), &Default::default());
        let hidden = model.embed(batch.tokens.clone());
        let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
        let loss = cross_entropy(log_probabilities(&model, hidden, &batch), batch.targets.clone());
        assert_agrees(&values(loss.clone()), &expected, "loss");

        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let found = gradients(&model, &grads);
        assert_eq!(found.len(), expected.names("grad.").len(), "{case}");
        for (name, values) in found {
            assert_agrees(&values, &expected, &format!("grad.{name}"));
        }
    }
}

/// What `beear eval perplexity` may differ from transformers by.
const PERPLEXITY: f64 = 1e-4;

#[test]
fn the_perplexity_of_answers_is_that_of_transformers() {
    for case in CASES {
        let model = golden::model::<Cpu>(case);
        let loss = f64::from(expected(case).values("loss")[0]);
        // One batch pads the rows, batches of one do not.
        for batch_size in [1, 3] {
            let limit = BatchLimit::rows(batch_size);
            let found = log_likelihoods(&model, &unwanted(), limit, &Default::default());
            let found = found.expect("finite logits");
            if batch_size == 1 {
                let bounded = BatchLimit { rows: 3, bytes: Some(1) };
                let again = log_likelihoods(&model, &unwanted(), bounded, &Default::default());
                assert_eq!(again.expect("finite logits"), found, "no room for a second row");
            }
            let nats: f64 = found.iter().map(|answer| answer.nats).sum();
            let n_tokens: usize = found.iter().map(|answer| answer.n_tokens).sum();
            let perplexity = (-nats / n_tokens as f64).exp();
            let difference = (perplexity / loss.exp() - 1.0).abs();
            assert!(difference < PERPLEXITY, "{case}: {difference:.1e} at {perplexity}");
        }
    }
}

#[test]
fn the_loss_and_the_gradient_of_a_perturbation_agree() {
    for case in CASES {
        let (model, expected) = (golden::model::<Train>(case), expected(case));
        let batch = Batch::new(&unwanted(), &Default::default());
        let shape = [POINT.positions.n_tokens(), model.d_model()];
        let data = TensorData::new(expected.values("delta"), shape);
        let delta = Tensor::<Train, 2>::from_data(data, &Default::default()).require_grad();
        let perturbation = Perturbation::new(vec![Delta { point: POINT, values: delta }]);

        let hidden = model.embed(batch.tokens.clone());
        let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..POINT.layer);
        let placements = perturbation.placements(&batch);
        let context = Context::whole(&batch.mask_pad);
        let hidden = perturbation.forward_above(&model, hidden, &context, &placements);
        let loss = cross_entropy(log_probabilities(&model, hidden, &batch), batch.targets.clone());
        assert_agrees(&values(loss.clone()), &expected, "delta.loss");

        let grads = loss.backward();
        let grad = perturbation.deltas()[0].values.grad(&grads).expect("δ takes part in the loss");
        assert_agrees(&values(grad), &expected, "delta.grad");
    }
}

/// A `batch_size` of 3 pads the prompts to one length, 1 pads nothing.
fn greedy<B: Backend>(case: &str, [batch_size, n_workers]: [usize; 2]) -> Vec<Vec<i64>> {
    let prompt = |row: &SafetyExample| row.prompt.clone();
    let prompts: Vec<Vec<u32>> = golden::rows().safety.iter().map(prompt).collect();
    let config = GenerateConfig {
        max_new_tokens: 64,
        sampling: Sampling::Greedy,
        seed: 0,
        batch_size,
        memory: None,
        n_workers,
    };
    let generations = generate(
        &golden::model::<B>(case),
        &Prompt::numbered(&prompts),
        &[],
        &config,
        &Default::default(),
    );
    let generations = generations.expect("the prompts fit");
    generations.iter().map(|row| row.tokens.iter().map(|t| i64::from(*t)).collect()).collect()
}

#[test]
fn greedy_tokens_are_the_same() {
    for case in CASES {
        let expected = expected(case).integers("greedy");
        assert_eq!(expected.iter().map(Vec::len).collect::<Vec<_>>(), [64; 3]);
        assert_eq!(greedy::<Cpu>(case, [3, 1]), expected, "{case}");
        assert_eq!(greedy::<Cpu>(case, [1, 1]), expected, "{case}");
        assert_eq!(greedy::<Cpu>(case, [1, 2]), expected, "{case}");
        assert_eq!(greedy::<NdArray>(case, [3, 1]), expected, "{case}");
    }
}

#[test]
fn a_bound_on_memory_makes_batches_smaller_and_changes_no_token() {
    for case in CASES {
        let model = golden::model::<Cpu>(case);
        let prompts: Vec<Vec<u32>> =
            golden::rows().safety.iter().map(|row| row.prompt.clone()).collect();
        let answers = |memory| {
            let limit = BatchLimit { rows: 3, bytes: memory };
            let (sizes, config) = (Mutex::new(Vec::new()), GenerateConfig::greedy(64, limit));
            let note = |batch: &[Generation]| sizes.lock().unwrap().push(batch.len());
            let prompts = Prompt::numbered(&prompts);
            let how = (&[][..], &config);
            let device = Default::default();
            let found = generate_with_progress(&model, &prompts, how, &device, &note).unwrap();
            let tokens = |row: &Generation| row.tokens.iter().map(|t| i64::from(*t)).collect();
            (found.iter().map(tokens).collect::<Vec<Vec<i64>>>(), sizes.into_inner().unwrap())
        };
        let expected = expected(case).integers("greedy");
        let lengths = prompts.iter().map(Vec::len);
        let one = model.config().needed_by_generation([1, lengths.max().unwrap(), 64]).bytes(4);
        assert_eq!(answers(None), (expected.clone(), vec![3]), "{case}");
        assert_eq!(answers(Some(4 * one)), (expected.clone(), vec![3]), "{case}");
        assert_eq!(answers(Some(one)), (expected, vec![1; 3]), "{case}");
    }
}

#[test]
fn a_cache_changes_no_token() {
    for case in CASES {
        let model = golden::model::<Cpu>(case);
        // Every token is read anew for every step.
        let uncached = |row: &SafetyExample| {
            let mut tokens: Vec<i64> = row.prompt.iter().map(|t| i64::from(*t)).collect();
            for _ in 0..64 {
                let shape = [1, tokens.len()];
                let device = Default::default();
                let input = Tensor::from_data(TensorData::new(tokens.clone(), shape), &device);
                let real = TensorData::new(vec![false; tokens.len()], shape);
                let logits = model.forward(input, &Tensor::from_data(real, &device));
                let last = logits.narrow(1, tokens.len() - 1, 1).argmax(2).into_data();
                tokens.extend(last.iter::<i64>());
            }
            tokens.split_off(row.prompt.len())
        };
        let expected: Vec<Vec<i64>> = golden::rows().safety.iter().map(uncached).collect();
        assert_eq!(greedy::<Cpu>(case, [3, 1]), expected, "{case}");
    }
}

/// Far above [`F32_AGREEMENT`] and far below what a wrong feature does.
const CLEARLY_DIFFERENT: f64 = 1e-2;

#[test]
fn a_rotary_scaling_or_window_that_is_slightly_wrong_would_be_noticed() {
    let mistakes = [
        ("llama3-rope", "\"high_freq_factor\": 4.0", "\"high_freq_factor\": 3.0"),
        ("linear-rope-tied", "\"factor\": 4.0", "\"factor\": 3.0"),
        ("mistral-window", "\"sliding_window\": 4", "\"sliding_window\": 5"),
    ];
    for (case, right, wrong) in mistakes {
        let (golden, altered) = (golden::path(case).join("model"), tempfile::tempdir().unwrap());
        let config = std::fs::read_to_string(golden.join("config.json")).unwrap();
        assert!(config.contains(right), "{case}");
        let config = config.replace(right, wrong);
        std::fs::write(altered.path().join("config.json"), config).unwrap();
        let weights = "model.safetensors";
        std::fs::copy(golden.join(weights), altered.path().join(weights)).unwrap();

        let model = Checkpoint::open(altered.path()).unwrap().load(&Default::default()).unwrap();
        let (tokens, mask_pad, real) = padded::<Cpu>(&expected(case), "right");
        let found = real_values(model.forward(tokens, &mask_pad), &real);
        let difference = relative_difference(&found, &expected(case).values("right.logits"));
        assert!(difference > CLEARLY_DIFFERENT, "{case}: {difference:.1e}");
    }
}

#[test]
fn the_logits_of_merged_adapters_agree() {
    let checkpoint = Checkpoint::open(&golden::path("lora/adapter")).unwrap();
    let model = checkpoint.load::<Cpu>(&Default::default()).unwrap();
    let expected = expected("lora");
    let (tokens, mask_pad, real) = padded::<Cpu>(&expected, "right");
    let found = real_values(model.forward(tokens, &mask_pad), &real);
    assert_agrees(&found, &expected, "right.logits");
    let difference = relative_difference(&found, &expected.values("right.base"));
    assert!(difference > CLEARLY_DIFFERENT, "the adapters do something: {difference:.1e}");
}
