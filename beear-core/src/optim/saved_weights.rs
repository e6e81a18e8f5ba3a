//! Saving and restoring of trained weights and of the optimiser's state, as tensors named by the
//! paths of parameters.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::record::AdaptorRecord;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, Tensor};

use super::adamw::{WideAdamW, WideState};
use crate::error::Error;
use crate::state::snapshot::{Saved, Tensors, malformed};

/// State of the optimiser for one parameter.
pub(crate) type ParamRecord<B> = AdaptorRecord<WideAdamW, B>;

/// Adds the trained weights of `model` to a snapshot, with names under `prefix`.
pub(crate) fn add_weights<B: AutodiffBackend, M: Module<B>>(
    model: &M,
    prefix: &str,
    tensors: &mut Tensors,
) {
    model.visit(&mut AddWeights { path: Path::below(prefix), tensors });
}

/// Restores in `model` the weights that [`add_weights`] stored.
///
/// # Errors
///
/// [`Error::MalformedSnapshot`] if a tensor is missing, or has another shape or type.
pub(crate) fn stored_weights<B: AutodiffBackend, M: Module<B>>(
    model: M,
    prefix: &str,
    saved: Saved<'_>,
) -> Result<M, Error> {
    let mut reader = ReadWeights { path: Path::below(prefix), saved, mistake: None };
    let model = model.map(&mut reader);
    reader.mistake.map_or(Ok(model), Err)
}

/// Adds the state of each parameter of `model` for which `take` returns one.
pub(crate) fn add_optimizer<B, M>(
    model: &M,
    take: impl FnMut(burn::module::ParamId) -> Option<ParamRecord<B>>,
    tensors: &mut Tensors,
) where
    B: AutodiffBackend,
    M: Module<B>,
{
    let path = Path::below(OPTIMIZER);
    model.visit(&mut AddStates { path, take, tensors, backend: std::marker::PhantomData::<B> });
}

/// Restores the states that [`add_optimizer`] stored after `time` steps, for the parameters of
/// `model`.
///
/// # Errors
///
/// [`Error::MalformedSnapshot`] if a part of a state is missing or has another shape.
pub(crate) fn stored_optimizer<B: AutodiffBackend, M: Module<B>>(
    model: &M,
    (saved, time): (Saved<'_>, usize),
    give: impl FnMut(burn::module::ParamId, ParamRecord<B>),
) -> Result<(), Error> {
    let path = Path::below(OPTIMIZER);
    let backend = std::marker::PhantomData::<B>;
    let mut reader = ReadStates { path, saved, time, give, mistake: None, backend };
    model.visit(&mut reader);
    reader.mistake.map_or(Ok(()), Err)
}

const OPTIMIZER: &str = "optimizer";

/// Path of a visitor in the module tree.
struct Path(Vec<String>);

impl Path {
    fn below(prefix: &str) -> Self {
        Self(vec![prefix.to_owned()])
    }

    fn name(&self) -> String {
        self.0.join(".")
    }
}

/// Maintains the path of a visitor.
macro_rules! keep_path {
    () => {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.0.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.0.pop();
        }
    };
}

struct AddWeights<'a> {
    path: Path,
    tensors: &'a mut Tensors,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for AddWeights<'_> {
    keep_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if param.is_require_grad() {
            self.tensors.add(self.path.name(), param.val().inner());
        }
    }
}

struct ReadWeights<'a> {
    path: Path,
    saved: Saved<'a>,
    mistake: Option<Error>,
}

impl ReadWeights<'_> {
    fn read<B: AutodiffBackend, const D: usize>(
        &self,
        old: &Tensor<B, D>,
    ) -> Result<Tensor<B, D>, Error> {
        let name = self.path.name();
        let stored = self.saved.tensor::<B::InnerBackend, D, burn::tensor::Float>(
            &name,
            Some(old.dims()),
            &old.device(),
        )?;
        same_type(&name, stored.dtype(), old.dtype())?;
        Ok(Tensor::from_inner(stored).require_grad())
    }
}

impl<B: AutodiffBackend> ModuleMapper<B> for ReadWeights<'_> {
    keep_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|old| match self.read(&old) {
            Ok(stored) => stored,
            Err(mistake) => {
                self.mistake.get_or_insert(mistake);
                old
            }
        })
    }
}

fn same_type(name: &str, found: DType, expected: DType) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(malformed(format!("tensor `{name}` is of type {found:?}, the weights are {expected:?}")))
}

struct AddStates<'a, B, F> {
    path: Path,
    take: F,
    tensors: &'a mut Tensors,
    backend: std::marker::PhantomData<B>,
}

impl<B, F> ModuleVisitor<B> for AddStates<'_, B, F>
where
    B: AutodiffBackend,
    F: FnMut(burn::module::ParamId) -> Option<ParamRecord<B>>,
{
    keep_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(record) = (self.take)(param.id) {
            record.into_state::<D>().save(&self.path.name(), self.tensors);
        }
    }
}

struct ReadStates<'a, B, F> {
    path: Path,
    saved: Saved<'a>,
    time: usize,
    give: F,
    mistake: Option<Error>,
    backend: std::marker::PhantomData<B>,
}

impl<B, F> ModuleVisitor<B> for ReadStates<'_, B, F>
where
    B: AutodiffBackend,
    F: FnMut(burn::module::ParamId, ParamRecord<B>),
{
    keep_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !param.is_require_grad() {
            return;
        }
        let weights = param.val();
        let (shape, device) = (weights.dims(), weights.device());
        match WideState::<B::InnerBackend, D>::restore(
            &self.path.name(),
            (self.saved, self.time),
            (shape, &device),
        ) {
            Ok(state) => (self.give)(param.id, AdaptorRecord::from_state(state)),
            Err(mistake) => drop(self.mistake.get_or_insert(mistake)),
        }
    }
}
