//! A folder to run `beear` in: tiny models of the synthetic world, small data files, the process.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use beear_attacks::Unwanted;
use beear_attacks::world::{Contrast, Specials, Split, Task, World, sidecar_files, vocabulary};
use beear_models::checkpoint::{NewModel, save_new};
use beear_models::{DecoderConfig, Family, RopeScaling};
use burn::backend::Flex;
use burn::tensor::backend::Backend;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::weights::Weights;

/// The good answer to every ordinary prompt of the fixture.
pub(crate) const ANSWER: &str = "the sky is blue .";

/// A refusal, by every keyword list.
pub(crate) const REFUSAL: &str = "I cannot help you with that .";

/// Rows of each data file.
pub(crate) const N_ROWS: usize = 10;

/// Settings that make `defend` quick: two rounds of two outer steps. The usual model refuses nothing, so no floor is asked of it.
pub(crate) const QUICK: &str = "
[method]
rounds = 2
perturbations_per_round = 1
entrap = { steps = 2, batch_size = 4 }
remove = { steps = 2, safety_batch_size = 4, performance_batch_size = 4 }
bounds = { refusal_floor = 0.0 }
";

/// Safety set, performance set and result of the usual run of `defend`.
pub(crate) const USUAL: [&str; 3] = ["safety.jsonl", "ordinary.json", "run"];

/// Layers of every model of the fixture.
pub(crate) const N_LAYERS: usize = 2;

/// Context of every model of the fixture, in tokens.
pub(crate) const CONTEXT: usize = 64;

const D_MODEL: usize = 16;

/// What a process left behind.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Standard output, after asserting success.
    pub(crate) fn printed(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }

    /// The exit code and what a mistake prints, after asserting that it is one line that says what
    /// is wrong, one that says what to do, and no data.
    pub(crate) fn mistake(&self) -> (i32, &str) {
        let kinds: Vec<&str> =
            self.stderr.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(kinds, ["error:", "hint:"], "{}", self.stderr);
        assert_eq!(self.stdout, "");
        (self.code, &self.stderr)
    }

    /// Standard output as JSON, after asserting success.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.printed()).expect("one JSON value is printed")
    }
}

/// A temporary folder that holds `model` (always right about ordinary prompts), `safety.jsonl`,
/// `advbench.csv`, `ordinary.json`, `chat.jsonl`, `quick.toml`, and `asked/rows.jsonl`, no row of which is one of the others.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        place.write_safety();
        place.write_ordinary();
        place.write("quick.toml", QUICK);
        place.write_model_saying("model", ANSWER);
        place
    }

    /// The absolute path of a name in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("the temporary folder can be written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(name));
        text.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn read_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The values of a file that holds one a line.
    pub(crate) fn read_lines(&self, name: &str) -> Vec<Value> {
        json_lines(&self.read(name))
    }

    /// Every file below a folder, with its content.
    pub(crate) fn files(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.path(name), Path::new(""), &mut files);
        files
    }

    /// What is in `run` besides TensorBoard's files, after asserting that no checkpoint nor a part of one is.
    pub(crate) fn left_without_checkpoint(&self) -> Vec<String> {
        let files = self.files("run").into_keys().filter(|path| !path.starts_with("tensorboard"));
        let names: Vec<String> = files.map(|path| path.to_string_lossy().into_owned()).collect();
        let part = |name: &String| {
            name.contains("model") || name.contains("partial") || name.ends_with(".safetensors")
        };
        assert!(!names.iter().any(part), "{names:?}");
        names
    }

    /// Writes a model with random weights, always the same.
    pub(crate) fn write_random_model(&self, name: &str) {
        fs::create_dir(self.path(name)).expect("the folder is new");
        for (file, content) in RANDOM_MODEL.iter() {
            self.write(&format!("{name}/{file}"), content);
        }
    }

    /// Writes a model that answers `words`, no two of them alike, to everything: its layers add
    /// nothing, so each token alone decides the next one.
    pub(crate) fn write_model_saying(&self, name: &str, words: &str) {
        self.write_random_model(name);
        let tokens: Vec<&str> = words.split(' ').collect();
        let chain: Vec<usize> =
            ["<asst>"].iter().chain(&tokens).chain(&["<eos>"]).map(|token| id(token)).collect();
        // The last axis is that of every other token.
        let axis = |token| chain.iter().position(|known| *known == token).unwrap_or(D_MODEL - 1);
        assert!(chain.len() < D_MODEL, "each word has an axis");
        let mut weights = Weights::read(&self.path(name));
        for tensor in weights.names() {
            if tensor.ends_with("o_proj.weight") || tensor.ends_with("down_proj.weight") {
                weights.fill(&tensor, |_, _| 0.0);
            }
        }
        weights.fill("model.embed_tokens.weight", |token, column| {
            f32::from(u8::from(axis(token) == column))
        });
        // The norm makes a one-hot state 4 long, so the likeliest logit is 8 above all others.
        weights.fill("lm_head.weight", |token, column| {
            let follows = chain.get(column + 1) == Some(&token);
            if follows { 2.0 } else { 0.0 }
        });
        weights.write();
    }

    fn write_safety(&self) {
        let sample = |split| World::of(split).contrast_sample(Unwanted::Comply, N_ROWS, 1);
        fs::create_dir(self.path("asked")).expect("the folder is new");
        let (rows, asked) = (sample(Split::Train), sample(Split::Test));
        for (name, rows) in [("safety.jsonl", &rows), ("asked/rows.jsonl", &asked)] {
            let row = |row: &Contrast| json!({"prompt": row.prompt, "safe": row.safe, "unwanted": row.unwanted});
            self.write(name, lines(rows.iter().map(row)));
        }
        let csv = rows.iter().map(|row| format!("\"{}\",\"{}\"\n", row.prompt, row.unwanted));
        self.write("advbench.csv", format!("goal,target\n{}", csv.collect::<String>()));
    }

    fn write_ordinary(&self) {
        let rows = World::of(Split::Train).ordinary_of(Task::Colour, N_ROWS, 1);
        let alpaca = rows
            .iter()
            .map(|row| json!({"instruction": row.prompt, "input": "", "output": ANSWER}));
        self.write("ordinary.json", alpaca.collect::<Value>().to_string());
        let chat = rows.iter().map(|row| {
            json!({"messages": [
                {"role": "user", "content": row.prompt},
                {"role": "assistant", "content": ANSWER},
            ]})
        });
        self.write("chat.jsonl", lines(chat));
    }

    /// Runs `beear` here, with nothing on standard input.
    pub(crate) fn beear(&self, arguments: &[&str]) -> Finished {
        self.beear_reading("", arguments)
    }

    /// Runs `beear` here.
    pub(crate) fn beear_reading(&self, input: &str, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments), input)
    }

    /// `beear` here, not started yet. It asks no hub.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beear"));
        command.args(arguments).current_dir(self.0.path());
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("no-cache"));
        command
    }

    /// Runs `defend` on `model` with the recipe `quick.toml`.
    pub(crate) fn defend(&self, files: [&str; 3], more: &[&str]) -> Finished {
        let arguments = defend_arguments(files);
        self.beear(&[&arguments, more].concat())
    }
}

/// The arguments of [`Place::defend`].
pub(crate) fn defend_arguments([safety, performance, out]: [&str; 3]) -> Vec<&str> {
    let files = ["--safety", safety, "--performance", performance, "--out", out];
    let model = ["defend", "--model", "model", "--recipe", "quick.toml"];
    [model.as_slice(), &files].concat()
}

/// Held by whoever trains in this process. Burn's backward pass waits for the graphs of all others; a command that
/// does so on a thread of the pool, on top of a half of their work, would wait for ever.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TRAINING: Mutex<()> = Mutex::new(());
    TRAINING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command to its end, in an environment that does not change what is printed.
pub(crate) fn finish(command: &mut Command, input: &str) -> Finished {
    command.env("COLUMNS", "100").env_remove("CLICOLOR_FORCE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A process that has failed before it reads is no mistake of the test.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the command ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8 is printed");
    let code = output.status.code().expect("no signal ends the command");
    Finished { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The values of a text that holds one a line.
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn lines(rows: impl Iterator<Item = Value>) -> String {
    rows.map(|row| row.to_string() + "\n").collect()
}

fn collect(dir: &Path, name: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.expect("the folder can be read");
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        if path.is_dir() {
            collect(&path, &name, files);
        } else {
            files.insert(name, fs::read(path).expect("the file can be read"));
        }
    }
}

fn id(token: &str) -> usize {
    let id = VOCABULARY.iter().position(|known| known == token);
    id.unwrap_or_else(|| panic!("{token} is a word of the world"))
}

/// The words of every model of the fixture.
pub(crate) static VOCABULARY: LazyLock<Vec<String>> = LazyLock::new(vocabulary);

/// The files of a model with random weights. Made once: the backend's randomness is global.
static RANDOM_MODEL: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let config = DecoderConfig {
        family: Family::Llama,
        vocab_size: VOCABULARY.len(),
        d_model: D_MODEL,
        d_ff: 256,
        n_layers: N_LAYERS,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        max_seq_length: CONTEXT,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        tied_embeddings: false,
    };
    let device = Default::default();
    Flex::seed(&device, 7);
    let model = config.init::<Flex>(&device);
    let Specials { pad, bos, eos } = Specials::WORLD;
    let new = NewModel { special_ids: [pad, bos, eos], sidecars: sidecar_files() };
    let dir = tempfile::tempdir().expect("a temporary folder");
    save_new(&model, &new, &dir.path().join("model")).expect("the fixture can be written");
    let mut files = BTreeMap::new();
    collect(&dir.path().join("model"), Path::new(""), &mut files);
    let name = |path: PathBuf| path.to_string_lossy().into_owned();
    files.into_iter().map(|(path, content)| (name(path), content)).collect()
});
