//! The plug for compute backends.
//!
//! A backend of your own takes one `impl` of [`ComputeBackend`] and
//! `beear_cli::run(std::env::args_os(), Backends::embedded().with::<Mine>())`.

use std::marker::PhantomData;

use anyhow::Result;
use burn::tensor::Element;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{Device, FloatElem};
use thiserror::Error;

use crate::command::DeviceCommand;
use crate::pool;
use crate::ui::Ui;

/// A backend the tool can run on.
pub trait ComputeBackend: 'static {
    /// The backend with automatic differentiation; its inner backend serves inference.
    type Train: AutodiffBackend;
    /// What `--backend` calls it.
    const NAME: &'static str;
    /// The device of an index, 0 being the first.
    fn device(index: usize) -> Device<Self::Train>;
    /// How many batches of answers are generated at the same time.
    fn n_workers() -> usize {
        1
    }
    /// Bytes that are free on a device, if they can be known.
    fn free_memory(_device: &Device<Self::Train>) -> Option<u64> {
        None
    }
    /// Whether the device of an index can run here, or why not. One device is the default.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] with the reason and what to do.
    fn availability(index: usize) -> Result<(), Unavailable> {
        Unavailable::unless(index == 0, Self::NAME, "it has one device", "its index is 0")
    }
}

/// Bytes of a number, and so of a weight, on a backend.
pub(crate) fn width<C: ComputeBackend>() -> u64 {
    width_of::<C::Train>()
}

/// Bytes of a number of the backend `B`.
pub(crate) fn width_of<B: Backend>() -> u64 {
    <FloatElem<B> as Element>::dtype().size() as u64
}

/// Why a backend cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("backend `{backend}` is not available: {reason}")]
pub struct Unavailable {
    /// Its name.
    pub backend: String,
    /// Why.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

impl Unavailable {
    /// Why `backend` cannot be used, if it cannot.
    ///
    /// # Errors
    ///
    /// `Unavailable` unless `available`.
    pub fn unless(available: bool, backend: &str, reason: &str, hint: &str) -> Result<(), Self> {
        let [backend, reason, hint] = [backend, reason, hint].map(str::to_owned);
        if available { Ok(()) } else { Err(Self { backend, reason, hint }) }
    }
}

/// The backends of this binary, the default first.
pub struct Backends(Vec<Box<dyn Entry>>);

impl Backends {
    /// Those compiled in.
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

    /// Every backend, and why its first device cannot run here if it cannot.
    fn listed(&self) -> String {
        let state = |entry: &dyn Entry| match entry.availability(0) {
            Ok(()) => entry.name().to_owned(),
            Err(unavailable) => format!("{} (not now: {})", entry.name(), unavailable.reason),
        };
        self.0.iter().map(|entry| state(entry.as_ref())).collect::<Vec<_>>().join(", ")
    }

    /// Runs a command on the backend named `NAME[:INDEX]`, or on the default.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], or what the command fails with.
    pub(crate) fn run(&self, name: Option<&str>, command: &DeviceCommand, ui: Ui) -> Result<()> {
        let (entry, index) = self.find_or_default(name)?;
        pool::within(|| entry.run(index, command, ui))
    }

    /// Finds out whether the backend named `NAME[:INDEX]` can be used.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        self.find(name)?;
        Ok(())
    }

    /// Batches of answers that the backend named `NAME[:INDEX]`, or the default, generates at the same time.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if there is none.
    pub(crate) fn n_workers(&self, name: Option<&str>) -> Result<usize, Unavailable> {
        Ok(self.find_or_default(name)?.0.n_workers())
    }

    /// Bytes of a number on the backend named `NAME[:INDEX]`, or on the default, and its name.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if there is none.
    pub(crate) fn width(&self, name: Option<&str>) -> Result<(&'static str, u64)> {
        let (entry, _) = self.find_or_default(name)?;
        Ok((entry.name(), entry.width()))
    }

    /// Every backend with its devices, the default first.
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

/// Where looking for devices ends: backends that cannot count them without making them accept any index.
pub(crate) const MOST_DEVICES: usize = 16;

/// A backend of this binary, as it is here.
#[derive(Clone, Debug)]
pub(crate) struct BackendState {
    /// Its name.
    pub(crate) name: &'static str,
    /// Devices; [`MOST_DEVICES`] where they are not known.
    pub(crate) n_devices: usize,
    /// Why its first device cannot be used, if it cannot.
    pub(crate) fault: Option<Unavailable>,
    /// Bytes of a number.
    pub(crate) width: u64,
}

/// A backend behind a pointer: the commands are generic, the registry is not.
trait Entry: Sync {
    fn name(&self) -> &'static str;
    fn availability(&self, index: usize) -> Result<(), Unavailable>;
    fn width(&self) -> u64;
    fn n_workers(&self) -> usize;
    fn run(&self, index: usize, command: &DeviceCommand, ui: Ui) -> Result<()>;
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

    fn run(&self, index: usize, command: &DeviceCommand, ui: Ui) -> Result<()> {
        command.run::<C>(&C::device(index), ui)
    }
}

/// The cores of this machine.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of the host that this process could have.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn free_on_host() -> Option<u64> {
    crate::process::machine_memory().map(|[_, available]| available)
}

mod embedded {
    //! The backends behind features.

    use burn::backend::Autodiff;
    use burn::tensor::ops::Device;

    use super::ComputeBackend;
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    use super::Unavailable;
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    use super::{free_on_host, n_cores};

    /// Burn's portable CPU backend, the default: it trains faster than `ndarray`.
    #[cfg(feature = "flex")]
    pub(super) struct Flex;

    #[cfg(feature = "flex")]
    impl ComputeBackend for Flex {
        type Train = Autodiff<burn::backend::Flex>;
        const NAME: &'static str = "flex";
        fn device(_index: usize) -> Device<Self::Train> {
            Default::default()
        }
        fn n_workers() -> usize {
            n_cores()
        }
        fn free_memory(_device: &Device<Self::Train>) -> Option<u64> {
            free_on_host()
        }
    }

    /// Burn's CPU backend on the ndarray crate.
    #[cfg(feature = "ndarray")]
    pub(super) struct NdArray;

    #[cfg(feature = "ndarray")]
    impl ComputeBackend for NdArray {
        type Train = Autodiff<burn::backend::NdArray>;
        const NAME: &'static str = "ndarray";
        fn device(_index: usize) -> Device<Self::Train> {
            Default::default()
        }
        fn n_workers() -> usize {
            n_cores()
        }
        fn free_memory(_device: &Device<Self::Train>) -> Option<u64> {
            free_on_host()
        }
    }

    /// NVIDIA GPUs, the production backend.
    #[cfg(feature = "cuda")]
    pub(super) struct Cuda;

    #[cfg(feature = "cuda")]
    impl ComputeBackend for Cuda {
        type Train = Autodiff<burn::backend::Cuda>;
        const NAME: &'static str = "cuda";
        fn device(index: usize) -> Device<Self::Train> {
            burn::backend::cuda::CudaDevice::new(index)
        }
        fn free_memory(_device: &Device<Self::Train>) -> Option<u64> {
            // CUDA may number GPUs in another order than the driver.
            crate::device_memory::least_free()
        }
        fn availability(index: usize) -> Result<(), Unavailable> {
            // Creating a CUDA device panics without the driver, so it is looked for first.
            let folders = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
            let usual = "/usr/lib/x86_64-linux-gnu:/usr/lib64:/usr/lib:/usr/lib/wsl/lib:\
                         /usr/lib/aarch64-linux-gnu:/usr/local/cuda/compat:/usr/local/nvidia/lib64";
            let found = folders.split(':').chain(usual.split(':')).any(|folder| {
                !folder.is_empty() && std::path::Path::new(folder).join("libcuda.so.1").exists()
            });
            let hint = "install the NVIDIA driver, or name its folder in LD_LIBRARY_PATH";
            let missing = "the NVIDIA driver library libcuda.so.1 was not found";
            Unavailable::unless(found, Self::NAME, missing, hint)?;
            let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus");
            let n_gpus = gpus.map_or(usize::MAX, Iterator::count);
            let fewer = format!("there are {n_gpus} GPUs, the first has index 0");
            Unavailable::unless(index < n_gpus, Self::NAME, &fewer, "choose a smaller index")
        }
    }

    /// GPUs through Vulkan, Metal or `WebGPU`.
    #[cfg(feature = "wgpu")]
    pub(super) struct Wgpu;

    #[cfg(feature = "wgpu")]
    impl ComputeBackend for Wgpu {
        type Train = Autodiff<burn::backend::Wgpu>;
        const NAME: &'static str = "wgpu";
        fn device(index: usize) -> Device<Self::Train> {
            match index {
                0 => burn::backend::wgpu::WgpuDevice::DefaultDevice,
                index => burn::backend::wgpu::WgpuDevice::DiscreteGpu(index - 1),
            }
        }
        fn availability(_index: usize) -> Result<(), Unavailable> {
            // Only asking for an adapter tells, and that is creating the device.
            Ok(())
        }
    }
}
