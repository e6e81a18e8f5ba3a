//! Weights and gradients of a module by the names and in the layout of checkpoints.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

/// Values of every weight.
pub fn weights<B: Backend, M: Module<B>>(model: &M) -> BTreeMap<String, Vec<f32>> {
    let mut named = Named::default();
    model.visit(&mut Weights(&mut named));
    named.values
}

/// Gradients of every weight.
///
/// # Panics
///
/// Panics if a weight has none.
pub fn gradients<B: AutodiffBackend, M: Module<B>>(
    model: &M,
    grads: &GradientsParams,
) -> BTreeMap<String, Vec<f32>> {
    let mut named = Named::default();
    model.visit(&mut Gradients { named: &mut named, grads });
    named.values
}

#[derive(Default)]
struct Named {
    path: Vec<String>,
    values: BTreeMap<String, Vec<f32>>,
}

impl Named {
    fn insert<B: Backend, const D: usize>(&mut self, tensor: Tensor<B, D>) {
        // Checkpoints store linear weights `[d_output, d_input]`, modules hold the transpose.
        let is_linear = self.path.iter().any(|part| part.ends_with("_proj") || part == "lm_head");
        let stored = if is_linear { tensor.transpose() } else { tensor };
        let values = stored.into_data().iter::<f32>().collect();
        self.values.insert(self.path.join("."), values);
    }
}

struct Weights<'a>(&'a mut Named);

impl<B: Backend> ModuleVisitor<B> for Weights<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.0.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.0.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.insert(param.val());
    }
}

struct Gradients<'a> {
    named: &'a mut Named,
    grads: &'a GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Gradients<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.named.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.named.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let grad = self.grads.get::<B::InnerBackend, D>(param.id);
        self.named.insert(grad.expect("every weight takes part in the loss"));
    }
}
