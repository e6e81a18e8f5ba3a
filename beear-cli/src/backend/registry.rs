//! Registry of the backends of this binary, by name.

use std::marker::PhantomData;

use anyhow::Result;

#[cfg(any(feature = "flex", feature = "ndarray", feature = "cuda", feature = "wgpu"))]
use crate::backend::embedded;
use crate::backend::pool;
use crate::backend::{ComputeBackend, Unavailable, width};
use crate::command::DeviceCommand;
use crate::display::console::Console;

/// Backends of this binary, the default first.
pub struct Backends(Vec<Box<dyn Entry>>);

impl Backends {
    /// Returns the backends that are compiled in.
    #[must_use]
    pub fn embedded() -> Self {
        let backends = Self(Vec::new());
        #[cfg(feature = "flex")]
        let backends = backends.with::<embedded::Flex>();
        #[cfg(feature = "ndarray")]
        let backends = backends.with::<embedded::NdArray>();
        #[cfg(feature = "cuda")]
        let backends = backends.with::<embedded::Cuda>();
        #[cfg(feature = "wgpu")]
        let backends = backends.with::<embedded::Wgpu>();
        backends
    }

    /// Adds a backend.
    #[must_use]
    pub fn with<C: ComputeBackend>(mut self) -> Self {
        self.0.push(Box::new(Plugged::<C>(PhantomData)));
        self
    }

    /// Returns the names of all backends, each with the reason why its first device cannot be used,
    /// if there is one.
    fn listed(&self) -> String {
        let state = |entry: &dyn Entry| match entry.availability(0) {
            Ok(()) => entry.name().to_owned(),
            Err(unavailable) => format!("{} (not now: {})", entry.name(), unavailable.reason),
        };
        self.0.iter().map(|entry| state(entry.as_ref())).collect::<Vec<_>>().join(", ")
    }

    /// Runs a command on the backend named `NAME[:INDEX]`, or on the default backend.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], or the error of the command.
    pub(crate) fn run(
        &self,
        name: Option<&str>,
        command: &DeviceCommand,
        console: Console,
    ) -> Result<()> {
        let (entry, index) = self.find_or_default(name)?;
        pool::within(|| entry.run(index, command, console))
    }

    /// Checks that the backend named `NAME[:INDEX]` can be used.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if it cannot.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        self.find(name)?;
        Ok(())
    }

    /// Returns the number of batches of answers that the backend named `NAME[:INDEX]`, or the
    /// default backend, generates at the same time.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if there is no such backend.
    pub(crate) fn n_workers(&self, name: Option<&str>) -> Result<usize, Unavailable> {
        Ok(self.find_or_default(name)?.0.n_workers())
    }

    /// Returns the name of the backend named `NAME[:INDEX]`, or of the default backend, and the
    /// size in bytes of its numbers.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if there is no such backend.
    pub(crate) fn width(&self, name: Option<&str>) -> Result<(&'static str, u64)> {
        let (entry, _) = self.find_or_default(name)?;
        Ok((entry.name(), entry.width()))
    }

    /// Returns every backend with its number of devices, the default first.
    pub(crate) fn states(&self) -> Vec<BackendState> {
        let state = |entry: &dyn Entry| {
            let n_devices =
                (0..MOST_DEVICES).take_while(|i| entry.availability(*i).is_ok()).count();
            let fault = entry.availability(0).err();
            BackendState { name: entry.name(), n_devices, fault, width: entry.width() }
        };
        self.0.iter().map(|entry| state(entry.as_ref())).collect()
    }

    fn find_or_default(&self, name: Option<&str>) -> Result<(&dyn Entry, usize), Unavailable> {
        let default = self.0.first().map(|entry| entry.name());
        self.find(name.or(default).unwrap_or("none"))
    }

    fn find(&self, asked: &str) -> Result<(&dyn Entry, usize), Unavailable> {
        let (name, index) = asked.split_once(':').unwrap_or((asked, "0"));
        let unavailable = |reason: &str| Unavailable {
            backend: asked.to_owned(),
            reason: reason.to_owned(),
            hint: format!("here: {}", self.listed()),
        };
        let index = index.parse().map_err(|_| unavailable("the index is not a number"))?;
        let entry = self.0.iter().find(|entry| entry.name() == name);
        let entry = entry.ok_or_else(|| unavailable("it is not compiled in"))?;
        entry.availability(index)?;
        Ok((entry.as_ref(), index))
    }
}

/// Maximum number of devices that are looked for. Some backends cannot count devices without
/// creating them and accept any index.
pub(crate) const MOST_DEVICES: usize = 16;

/// State of a backend of this binary on this machine.
#[derive(Clone, Debug)]
pub(crate) struct BackendState {
    pub(crate) name: &'static str,
    /// Number of devices. It is [`MOST_DEVICES`] if the backend cannot count them.
    pub(crate) n_devices: usize,
    /// Reason why the first device cannot be used, if it cannot.
    pub(crate) fault: Option<Unavailable>,
    /// Size of a number in bytes.
    pub(crate) width: u64,
}

/// Object-safe form of [`ComputeBackend`], because the commands are generic and the registry is
/// not.
trait Entry: Sync {
    fn name(&self) -> &'static str;
    fn availability(&self, index: usize) -> Result<(), Unavailable>;
    fn width(&self) -> u64;
    fn n_workers(&self) -> usize;
    fn run(&self, index: usize, command: &DeviceCommand, console: Console) -> Result<()>;
}

struct Plugged<C>(PhantomData<fn() -> C>);

impl<C: ComputeBackend> Entry for Plugged<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn availability(&self, index: usize) -> Result<(), Unavailable> {
        C::availability(index)
    }

    fn width(&self) -> u64 {
        width::<C>()
    }

    fn n_workers(&self) -> usize {
        C::n_workers()
    }

    fn run(&self, index: usize, command: &DeviceCommand, console: Console) -> Result<()> {
        command.run::<C>(&C::device(index), console)
    }
}
