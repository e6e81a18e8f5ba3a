//! Access to single stored weights, for comparing models without running them.

use std::iter::once;

use super::load::{check, map, tensors, values};
use super::{Checkpoint, CheckpointError, keys};

/// Stored weight; linear maps are `[d_output, d_input]`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredWeight {
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Values in row-major order, in f32 independent of the stored type.
    pub values: Vec<f32>,
}

impl Checkpoint {
    /// Returns the names of all weights, with those outside of the layers first. Additional tensors
    /// of old exporters are left out.
    pub fn weight_names(&self) -> impl Iterator<Item = String> {
        keys::expected(&self.config).map(|(name, _)| name)
    }

    /// Reads the weight called `name` and merges its adapter if it has one. No other weight is
    /// read.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError`] if a file is damaged, or the tensor is missing, of the wrong
    /// shape or type, or not finite.
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
