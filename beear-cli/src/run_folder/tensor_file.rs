//! Tensors of a snapshot in a safetensors file. They are written one at a time from where they are,
//! and read one at a time.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use beear_core::NamedTensor;
use burn::tensor::{DType, TensorData};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, View};

use crate::run_folder::cannot_write::CannotWrite;
use crate::user_error::UserError;

/// An open file of tensors.
#[derive(Debug)]
pub(crate) struct TensorFile {
    file: Mutex<File>,
    metadata: Metadata,
    /// Offset at which the values begin.
    start: u64,
}

/// Size in bytes of the header's length.
const LENGTH: usize = 8;

/// Longest header in bytes. It has room for a hundred thousand tensors.
const LONGEST_HEADER: u64 = 32 << 20;

impl TensorFile {
    /// Writes `tensors` and syncs the file. At most one of them is copied at a time.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) fn write(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
        let views = tensors.iter().map(|tensor| Ok((tensor.name.as_str(), Stored::of(tensor)?)));
        let views = views.collect::<Result<Vec<_>>>()?;
        let written = safetensors::serialize_to_file(views, None, path);
        let source = match written {
            Ok(()) => File::open(path).and_then(|file| file.sync_all()),
            Err(SafeTensorError::IoError(source)) => Err(source),
            Err(error) => return Err(error.into()),
        };
        source.map_err(CannotWrite::at(path))?;
        Ok(())
    }

    /// Opens a file written by [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not such a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let mut file = beear_input::open(path).with_context(reading)?;
        let mut length = [0; LENGTH];
        file.read_exact(&mut length).with_context(reading)?;
        let header = u64::from_le_bytes(length);
        if header > LONGEST_HEADER {
            let what = format!("`{}` is no file of tensors", path.display());
            return Err(UserError::input(what, "start the run anew").into());
        }
        let start = header + LENGTH as u64;
        // The library reads the header only together with the whole file.
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).with_context(reading)?;
        let metadata: Metadata = serde_json::from_slice(&text).with_context(reading)?;
        Ok(Self { file: Mutex::new(file), metadata, start })
    }

    /// Returns a tensor by its name, or `None` if it does not exist or cannot be read.
    pub(crate) fn tensor(&self, name: &str) -> Option<TensorData> {
        let info = self.metadata.info(name)?;
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end.checked_sub(begin)?];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start + begin as u64)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        let (dtype, _) = TYPES.into_iter().find(|(_, stored)| *stored == info.dtype)?;
        Some(TensorData::from_bytes_vec(bytes, info.shape.clone(), dtype))
    }
}

/// Types of tensors in memory and in the file.
const TYPES: [(DType, Dtype); 12] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
];

/// A tensor that is copied when it is written.
struct Stored<'a> {
    tensor: &'a NamedTensor,
    dtype: Dtype,
}

impl<'a> Stored<'a> {
    fn of(tensor: &'a NamedTensor) -> Result<Self> {
        let stored = TYPES.into_iter().find(|(dtype, _)| *dtype == tensor.dtype);
        let (_, dtype) = stored.with_context(|| format!("no file holds {:?}", tensor.dtype))?;
        Ok(Self { tensor, dtype })
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.tensor.data().bytes.to_vec())
    }

    fn data_len(&self) -> usize {
        self.tensor.size()
    }
}
