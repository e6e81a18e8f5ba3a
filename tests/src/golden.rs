//! The files under `tests/goldens`, made by the Python scripts beside them.

use std::fmt;
use std::path::{Path, PathBuf};

use beear_core::AnchorSets;
use beear_models::{CausalLm, Checkpoint};
use burn::tensor::backend::Backend;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Llama with grouped queries and Llama 3.1's rotary scaling; Llama with tied embeddings and
/// linear scaling; Mistral with a window shorter than the rows, grouped queries and heads that
/// are wider than `d_model / n_heads`.
pub const CASES: [&str; 3] = ["llama3-rope", "linear-rope-tied", "mistral-window"];

/// Where a golden file is.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

/// The model of a case.
///
/// # Panics
///
/// Panics if its files are not there.
pub fn model<B: Backend>(case: &str) -> CausalLm<B> {
    let checkpoint = Checkpoint::open(&path(case).join("model"));
    let checkpoint = checkpoint.expect("the golden folder is a model");
    checkpoint.load(&Default::default()).expect("the golden weights are whole")
}

/// Reads a golden JSON file.
///
/// # Panics
///
/// Panics if it is not there or not JSON.
#[must_use]
pub fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).expect("the golden file is there");
    serde_json::from_str(&text).expect("the golden file is JSON")
}

/// Reads a golden file that holds a JSON value a line.
///
/// # Panics
///
/// Panics if it is not there or not that.
#[must_use]
pub fn lines<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let text = std::fs::read_to_string(path(name)).expect("the golden file is there");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is a row")).collect()
}

/// The rows of `rows.json`, which every golden is made from.
///
/// # Panics
///
/// Panics if the file is malformed.
#[must_use]
pub fn rows() -> AnchorSets {
    let rows = json("rows.json");
    let part = |name: &str| rows[name].clone();
    AnchorSets {
        safety: serde_json::from_value(part("safety")).expect("safety examples"),
        performance: serde_json::from_value(part("performance")).expect("examples"),
    }
}

/// A safetensors file of expected values.
#[derive(Clone, Debug)]
pub struct Golden {
    name: String,
    bytes: Vec<u8>,
}

impl Golden {
    /// Reads the golden file `name`.
    ///
    /// # Panics
    ///
    /// Panics if it is not there.
    #[must_use]
    pub fn read(name: &str) -> Self {
        let bytes = std::fs::read(path(name)).expect("the golden file is there");
        Self { name: name.to_owned(), bytes }
    }

    /// The f32 values of a tensor.
    ///
    /// # Panics
    ///
    /// Panics if there is none of this name and type.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<f32> {
        let bytes = |view: TensorView<'_>| {
            assert_eq!(view.dtype(), Dtype::F32, "{name}");
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        self.view(name, bytes)
    }

    /// The whole numbers of a tensor, row after row.
    ///
    /// # Panics
    ///
    /// Panics if there is no matrix of this name and type.
    #[must_use]
    pub fn integers(&self, name: &str) -> Vec<Vec<i64>> {
        self.view(name, |view| {
            assert_eq!(view.dtype(), Dtype::I64, "{name}");
            let &[_, n_columns] = view.shape() else { panic!("{name} is not a matrix") };
            let values = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
            values.collect::<Vec<i64>>().chunks(n_columns).map(<[i64]>::to_vec).collect()
        })
    }

    /// Names of the tensors that begin with `prefix`, without it.
    ///
    /// # Panics
    ///
    /// Panics if the file is malformed.
    #[must_use]
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let file = self.parse();
        file.names()
            .iter()
            .filter_map(|name| name.strip_prefix(prefix))
            .map(str::to_owned)
            .collect()
    }

    fn view<T>(&self, name: &str, read: impl Fn(TensorView<'_>) -> T) -> T {
        read(self.parse().tensor(name).expect(name))
    }

    fn parse(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("the golden file is safetensors")
    }
}

impl fmt::Display for Golden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
