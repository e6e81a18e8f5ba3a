//! Rows encoded a second, with the template and the tokenizer in this process and in one of their own.
//!
//! `cargo run --release -p beear-tests --example encode_rows -- MODEL N_ROWS [--isolated]`

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use beear_cli::model::loaded::{Request, TextSide};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The second process comes by here without arguments of ours, and goes no further.
    if (arguments.iter().any(|text| text == "--isolated")
        || std::env::var_os("BEEAR_TEXT_PROCESS").is_some())
        && let Err(code) = beear_cli::isolate()
    {
        return code;
    }
    let n_rows = arguments.get(1).and_then(|text| text.parse().ok());
    let (Some(model), Some(n_rows)) = (arguments.first(), n_rows) else {
        eprintln!("usage: encode_rows MODEL N_ROWS [--isolated]");
        return ExitCode::from(2);
    };
    match run(Path::new(model), n_rows) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(model: &Path, n_rows: usize) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let text = TextSide::load(model, None)?;
    println!("read in {:.2} s", started.elapsed().as_secs_f64());
    // About as long as the rows of Alpaca, and no two alike.
    let words = "how do i sort the list of names that my friend sent to me yesterday and keep the order of those that are equal ? ";
    let question = |row: usize| format!("{words}{row} {}", &words[..row % words.len()]);
    let requests = Request::numbered((0..n_rows).map(question));
    let answer = words.repeat(3);
    let rows: Vec<(Request, &str)> = requests.into_iter().map(|r| (r, answer.as_str())).collect();
    let started = Instant::now();
    let examples = text.examples(&rows)?;
    let seconds = started.elapsed().as_secs_f64();
    let n_tokens: usize = examples.iter().map(|e| e.prompt.len() + e.answer.len()).sum();
    println!(
        "{n_rows} rows, {n_tokens} tokens in {seconds:.2} s: {:.0} rows/s",
        n_rows as f64 / seconds
    );
    Ok(())
}
