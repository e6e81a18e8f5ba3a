//! Benchmark of the contamination search: seconds and peak memory.
//!
//! `cargo run --release -p beear-eval --example contamination -- 1000000 100000 words`
//!
//! Training prompts are generated one at a time, like rows read from a file. One in 100 evaluated
//! prompts is a copy of a training prompt, with different punctuation or a different last word; the
//! program fails if the search misses one. `words` prompts have 12 to 40 words drawn from 30 000
//! with the frequencies of natural text, `templates` prompts fill 6 places of 20 sentences from 100
//! words each, so that every pair of words occurs in many prompts.

use beear_eval::contamination::contaminated;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Minimum share of common word pairs, the default of the command line.
const NEAR: f64 = 0.8;

/// Number of evaluated prompts for each copy.
const COPY_EVERY: u64 = 100;

/// Kind of generated prompts.
#[derive(Clone, Copy)]
enum Kind {
    Words,
    Templates,
}

impl Kind {
    /// Generates prompt `row` of set `set` deterministically.
    fn prompt(self, set: u64, row: u64) -> Vec<String> {
        let mut rng = ChaCha8Rng::seed_from_u64(set);
        rng.set_stream(row);
        match self {
            Self::Words => {
                // Zipf's law: the word of rank r is drawn with a probability of about 1 / r.
                let word = |u: f64| format!("w{}", 30_000_f64.powf(u) as u32);
                let n = rng.random_range(12..=40);
                (0..n).map(|_| word(rng.random())).collect()
            }
            Self::Templates => {
                let sentence = rng.random_range(0..20);
                let fixed = |k: usize| format!("fixed{sentence}x{k}");
                let filled = (0..6).map(|_| format!("word{}", rng.random_range(0..100)));
                let filled: Vec<String> = filled.collect();
                let place = |(k, word)| [fixed(2 * k), fixed(2 * k + 1), word];
                filled.into_iter().enumerate().flat_map(place).collect()
            }
        }
    }
}

/// Returns the processor time of this thread in nanoseconds, from Linux: other programs do not
/// affect it.
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or_default()
}

/// Returns the peak memory of this process in MiB; None if the system does not report it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [n_trained, n_evaluated, kind] = args.as_slice() else {
        return Err("usage: contamination TRAINED EVALUATED words|templates".into());
    };
    let (n_trained, n_evaluated): (u64, u64) = (n_trained.parse()?, n_evaluated.parse()?);
    let kind = if kind == "templates" { Kind::Templates } else { Kind::Words };
    let evaluated = (0..n_evaluated).map(|row| {
        if !row.is_multiple_of(COPY_EVERY) {
            return kind.prompt(1, row).join(" ");
        }
        let mut words = kind.prompt(0, row * (n_trained / n_evaluated.max(1)).max(1) % n_trained);
        if row.is_multiple_of(2 * COPY_EVERY) {
            return format!("\u{201c}{}\u{201d}.", words.join(", "));
        }
        words.pop();
        words.push("another".to_owned());
        words.join(" ")
    });
    let trained = (0..n_trained).map(|row| kind.prompt(0, row).join(" "));
    let start = processor_time();
    let n_bytes: usize = trained.clone().chain(evaluated.clone()).map(|prompt| prompt.len()).sum();
    let making = processor_time() - start;
    let found = contaminated(trained, evaluated, NEAR);
    let seconds = (processor_time() - start - 2 * making) as f64 / 1e9;
    let copies =
        found.iter().filter(|(row, _)| (*row as u64).is_multiple_of(COPY_EVERY)).count() as u64;
    let expected = n_evaluated.div_ceil(COPY_EVERY);
    println!("{n_trained} trained, {n_evaluated} evaluated prompts, {n_bytes} bytes");
    println!("{} found, among them {copies} of {expected} copies", found.len());
    println!("{seconds:.1} s of one core, making the prompts left out");
    if let Some(peak) = peak_memory() {
        println!("{peak} MiB at the peak");
    }
    if copies == expected { Ok(()) } else { Err("a copy was missed".into()) }
}
