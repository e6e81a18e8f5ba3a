//! Interface between the commands and the compute backends.
//!
//! Another backend needs one `impl` of [`ComputeBackend`] and
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

/// A compute backend that the commands can run on.
pub trait ComputeBackend: 'static {
    /// The backend with automatic differentiation; its inner backend serves inference.
    type Train: AutodiffBackend;
    /// Name of the backend in `--backend`.
    const NAME: &'static str;
    /// Returns the device with the given index. The first has index 0.
    fn device(index: usize) -> Device<Self::Train>;
    /// Returns the number of batches of answers that are generated at the same time.
    fn n_workers() -> usize {
        1
    }
    /// Returns the number of free bytes on a device, or `None` if it is unknown.
    fn free_memory(_device: &Device<Self::Train>) -> Option<u64> {
        None
    }
    /// Checks that the device with the given index can be used on this machine. By default a
    /// backend has one device.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] with the reason and a hint if the device cannot be used.
    fn availability(index: usize) -> Result<(), Unavailable> {
        Unavailable::unless(index == 0, Self::NAME, "it has one device", "its index is 0")
    }
}

/// Returns the size in bytes of a number, and so of a weight, on a backend.
pub(crate) fn width<C: ComputeBackend>() -> u64 {
    width_of::<C::Train>()
}

/// Returns the size in bytes of a number of the backend `B`.
pub(crate) fn width_of<B: Backend>() -> u64 {
    <FloatElem<B> as Element>::dtype().size() as u64
}

/// Error: a backend cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("backend `{backend}` is not available: {reason}")]
pub struct Unavailable {
    /// Name of the backend.
    pub backend: String,
    /// Reason in one clause.
    pub reason: String,
    /// Advice to the user.
    pub hint: String,
}

impl Unavailable {
    /// Returns `Ok` if the backend is `available`.
    ///
    /// # Errors
    ///
    /// `Unavailable` with the reason and the hint otherwise.
    pub fn unless(available: bool, backend: &str, reason: &str, hint: &str) -> Result<(), Self> {
        let [backend, reason, hint] = [backend, reason, hint].map(str::to_owned);
        if available { Ok(()) } else { Err(Self { backend, reason, hint }) }
    }
}

/// Training backend of a [`ComputeBackend`].
pub(crate) type Train<C> = <C as ComputeBackend>::Train;

/// Inference backend of a [`ComputeBackend`].
pub(crate) type Inference<C> = <Train<C> as AutodiffBackend>::InnerBackend;

/// Device of a [`ComputeBackend`].
pub(crate) type BackendDevice<C> = burn::tensor::ops::Device<Train<C>>;

/// Returns the number of cores of this machine, 1 if it is unknown.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the number of bytes of host memory that are available to this process.
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
            // CUDA may number the GPUs in a different order from the driver.
            crate::backend::device_memory::least_free()
        }
        fn availability(index: usize) -> Result<(), Unavailable> {
            // Creating a CUDA device without the driver panics, so the driver is looked for first.
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
            // Only requesting an adapter would show whether it exists, and that creates the device.
            Ok(())
        }
    }
}
