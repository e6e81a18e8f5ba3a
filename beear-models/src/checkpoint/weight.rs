//! One stored weight at a time: for whoever compares models and runs none.

use std::iter::once;

use super::load::{check, map, tensors, values};
use super::{Checkpoint, CheckpointError, keys};

/// A weight as it is stored: linear maps are `[d_output, d_input]`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredWeight {
    /// Its axes.
    pub shape: Vec<usize>,
    /// Its values in row-major order, in f32 whatever they are stored in.
    pub values: Vec<f32>,
}

impl Checkpoint {
    /// The names of all weights, those outside of the layers first. What old exporters store besides is not among
    /// them.
    pub fn weight_names(&self) -> impl Iterator<Item = String> {
        keys::expected(&self.config).map(|(name, _)| name)
    }

    /// Reads the weight called `name` and merges its adapter if it has one. No other weight is read.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if a file is damaged, or the tensor missing, of another shape or type, or not finite.
    pub fn weight(&self, name: &str) -> Result<StoredWeight, CheckpointError> {
        let files = self.map_files()?;
        let all = tensors(&files)?;
        let missing = || CheckpointError::Missing { names: vec![name.to_owned()] };
        let expected = keys::expected(&self.config).find(|(expected, _)| expected == name);
        let (_, shape) = expected.ok_or_else(missing)?;
        check(once((name.to_owned(), shape.clone())), &all)?;
        let mut weight = StoredWeight { values: values(&all[name], name)?, shape };
        if let Some(adapters) = &self.adapters {
            let files = [map(adapters.weights()?)?];
            adapters.add_to(&mut weight, name, &self.config, &tensors(&files)?)?;
        }
        Ok(weight)
    }
}
