//! What passes are counted to need is what they take of the allocator. A test binary of its own: others would move the
//! figures.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use beear_core::objective::entrapment::{PreparedAnswer, entrapment_loss};
use beear_core::{Batch, Delta, Example, InjectionPoint, Perturbation, Positions};
use beear_models::activations::{BatchShape, GradientsOf, Numbers};
use beear_models::{
    BatchLimit, CausalLm, DecoderConfig, GenerateConfig, Prompt, generate, log_likelihoods,
};
use beear_tests::shape::llama;
use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::tensor::Tensor;

type Train = Autodiff<Flex>;

/// Share by which a count may miss.
const COUNT: f64 = 0.1;

/// Bytes that are allocated now, and the most that ever were.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is made of unsafe functions")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: see above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: see above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(layout: Layout) {
    let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
    MOST.fetch_max(live, Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `pass` gives, and the most bytes that it had at a time.
fn most<R>(pass: impl FnOnce() -> R) -> (R, usize) {
    let before = LIVE.load(Relaxed);
    MOST.store(before, Relaxed);
    let given = pass();
    (given, MOST.load(Relaxed) - before)
}

fn assert_counted(what: &str, counted: Numbers, taken: usize) {
    let (counted, taken) = (counted.bytes(4) as f64, taken as f64);
    let difference = counted / taken - 1.0;
    println!(
        "{what}: counted {:.2}, taken {:.2} MiB, {:+.1} %",
        counted / 1_048_576.0,
        taken / 1_048_576.0,
        100.0 * difference
    );
    assert!(difference.abs() < COUNT, "{what}: counted {counted}, taken {taken}");
}

fn decoder(widths: [usize; 3], layers: [usize; 3]) -> DecoderConfig {
    DecoderConfig { max_seq_length: 4096, ..llama(widths, layers) }
}

/// Rows of which the user's words are the last quarter of the prompt.
fn rows([n_rows, prompt, answer]: [usize; 3]) -> Vec<Example> {
    let row = |id| Example {
        id,
        prompt: vec![3; prompt],
        user: (prompt * 3 / 4, prompt),
        answer: vec![5; answer],
    };
    (0..n_rows as u64).map(row).collect()
}

/// One test: what runs beside it would count too.
#[test]
fn passes_take_what_is_counted() {
    // What threads keep for later is had once.
    let config = decoder([2000, 256, 688], [2, 8, 8]);
    let rows = rows([16, 44, 21]);
    let model: CausalLm<Flex> = config.init(&Default::default());
    let _ = log_likelihoods(&model, &rows, BatchLimit::rows(16), &Default::default());
    let configs = [decoder([2000, 256, 688], [6, 8, 8]), decoder([1000, 160, 432], [4, 10, 5])];
    for config in &configs {
        let model: CausalLm<Flex> = config.init(&Default::default());
        // Short rows, of which the MLP needs most; long ones, of which attention does; long answers, where caches do.
        for shape in [[16, 44, 21], [2, 300, 20], [16, 12, 70]] {
            let what = format!("width {}, {shape:?}", config.d_model);
            inference(config, &model, shape, &what);
            inner_level(config, &model, shape, &what);
        }
    }
}

fn inference(config: &DecoderConfig, model: &CausalLm<Flex>, shape: [usize; 3], what: &str) {
    let (rows, device) = (rows(shape), Default::default());
    let [n_rows, n_prompt, n_new] = shape;
    let read = || log_likelihoods(model, &rows, BatchLimit::rows(n_rows), &device);
    let counted = config.needed_by_scoring(BatchShape::of(rows.iter()));
    assert_counted(&format!("{what}, reading"), counted, most(read).1);

    let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.prompt.clone()).collect();
    let greedy = GenerateConfig::greedy(n_new, BatchLimit::rows(n_rows));
    let answer = || {
        let found = generate(model, &Prompt::numbered(&prompts), &[], &greedy, &device);
        found.expect("the prompts fit")
    };
    let counted = config.needed_by_generation([n_rows, n_prompt, n_new]);
    assert_counted(&format!("{what}, answering"), counted, most(answer).1);
}

/// Preparing rows for a perturbation, what stays of them, and a step.
fn inner_level(config: &DecoderConfig, inference: &CausalLm<Flex>, shape: [usize; 3], what: &str) {
    let (rows, device) = (rows(shape), Default::default());
    let frozen = CausalLm::<Train>::from_inner(inference.clone()).no_grad();
    for positions in [Positions::Last(5), Positions::First(5)] {
        let (point, live) = (InjectionPoint { layer: 1, positions }, LIVE.load(Relaxed));
        let prepare =
            || PreparedAnswer::<Train>::new(inference, Batch::new(&rows, &device), &[point]);
        let (answer, preparing) = most(prepare);
        let kept = LIVE.load(Relaxed) - live;
        let (n_past, n_above) = (answer.n_past(), config.n_layers - 1);
        let whole = BatchShape::of(rows.iter());
        let rest = BatchShape { seq_length: whole.seq_length - n_past, ..whole };
        let before = BatchShape { seq_length: n_past, n_keys: n_past, ..whole };
        let states = |batch: BatchShape| Numbers {
            own: (batch.batch_size * batch.seq_length * config.d_model) as u64,
            wide: 0,
        };
        let past = config.cached(whole.batch_size * n_past, n_above);
        let what = format!("{what}, {positions:?}, past {n_past}");
        assert_counted(&format!("{what}, prepared"), past.plus(states(rest)), kept);
        let below = config.needed_by_inference(whole);
        let remembering = config.needed_by_remembering(whole, before, n_above);
        assert_counted(&format!("{what}, preparing"), below.or_more(remembering), preparing);

        let values = Tensor::<Train, 2>::zeros([5, config.d_model], &device).require_grad();
        let step = || {
            let delta = Delta { point, values: values.clone() };
            let perturbation = Perturbation::new(vec![delta]);
            let loss = entrapment_loss(&frozen, &perturbation, &answer, None);
            values.grad(&loss.backward()).expect("δ takes part in the loss")
        };
        let of = GradientsOf::HiddenStates;
        let layers = config.kept_by_layer(rest, of).times(n_above);
        let tables = config.kept_of_positions(rest).times(2);
        let kept = layers.plus(tables).plus(config.kept_by_head(rest, of));
        let moment = config.needed_by_step_on_hidden_states(rest);
        assert_counted(&format!("{what}, a step"), kept.plus(moment), most(step).1);
    }
}
