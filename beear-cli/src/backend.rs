//! The plug for compute backends.
//!
//! A backend of your own takes one `impl` of [`ComputeBackend`] and
//! `beear_cli::run(std::env::args_os(), Backends::embedded().with::<Mine>())`.

pub(crate) mod device_memory;
pub mod heap;
pub mod pool;
pub(crate) mod registry;
pub(crate) mod workers;

use burn::tensor::Element;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{Device, FloatElem};
use thiserror::Error;

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

/// The training backend of a plug.
pub(crate) type Train<C> = <C as ComputeBackend>::Train;

/// The inference backend of a plug.
pub(crate) type Inference<C> = <Train<C> as AutodiffBackend>::InnerBackend;

/// The device of a plug.
pub(crate) type BackendDevice<C> = burn::tensor::ops::Device<Train<C>>;

/// The cores of this machine.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of the host that this process could have.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn free_on_host() -> Option<u64> {
    crate::memory::process::machine_memory().map(|[_, available]| available)
}

pub(crate) mod embedded {
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
    pub(crate) struct Flex;

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
    pub(crate) struct NdArray;

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
    pub(crate) struct Cuda;

    #[cfg(feature = "cuda")]
    impl ComputeBackend for Cuda {
        type Train = Autodiff<burn::backend::Cuda>;
        const NAME: &'static str = "cuda";
        fn device(index: usize) -> Device<Self::Train> {
            burn::backend::cuda::CudaDevice::new(index)
        }
        fn free_memory(_device: &Device<Self::Train>) -> Option<u64> {
            // CUDA may number GPUs in another order than the driver.
            crate::backend::device_memory::least_free()
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
    pub(crate) struct Wgpu;

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
