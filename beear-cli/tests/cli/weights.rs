//! The weights file of a small checkpoint, changed in place.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A safetensors file of f32 tensors, in memory.
pub(crate) struct Weights {
    path: PathBuf,
    header: Value,
    bytes: Vec<u8>,
    /// Where the values start.
    start: usize,
}

impl Weights {
    /// Reads the weights of a folder.
    pub(crate) fn read(dir: &Path) -> Self {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).expect("the fixture has weights");
        let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
        let start = 8 + length.expect("the file starts with the length of its header") as usize;
        let header = serde_json::from_slice(&bytes[8..start]).expect("the header is JSON");
        Self { path, header, bytes, start }
    }

    /// The names of the tensors.
    pub(crate) fn names(&self) -> Vec<String> {
        let tensors = self.header.as_object().expect("the header is an object").keys();
        tensors.filter(|name| *name != "__metadata__").cloned().collect()
    }

    /// Sets every value of a tensor by its row and column; a vector is one row.
    pub(crate) fn fill(&mut self, name: &str, value: impl Fn(usize, usize) -> f32) {
        let tensor = &self.header[name];
        assert_eq!(tensor["dtype"], "F32", "{name}");
        let width = number(tensor["shape"].as_array().and_then(|s| s.last()).expect("a shape"));
        let place = self.place(name);
        let (values, rest) = self.bytes[place].as_chunks_mut::<4>();
        assert!(rest.is_empty(), "{name} is whole");
        for (index, bytes) in values.iter_mut().enumerate() {
            *bytes = value(index / width, index % width).to_le_bytes();
        }
    }

    /// The values of a matrix, row by row.
    pub(crate) fn values(&self, name: &str) -> Vec<Vec<f32>> {
        let width = number(&self.header[name]["shape"][1]);
        let (values, _) = self.of(name).as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        values.chunks(width).map(<[f32]>::to_vec).collect()
    }

    /// The bytes of a tensor.
    pub(crate) fn of(&self, name: &str) -> &[u8] {
        &self.bytes[self.place(name)]
    }

    /// Writes the file back with every value cut to bf16.
    pub(crate) fn write_as_bf16(mut self) {
        for name in self.names() {
            let offsets = &self.header[&name]["data_offsets"];
            let halves = [number(&offsets[0]) / 2, number(&offsets[1]) / 2];
            self.header[&name]["data_offsets"] = halves.to_vec().into();
            self.header[&name]["dtype"] = "BF16".into();
        }
        let header = self.header.to_string();
        let (values, rest) = self.bytes[self.start..].as_chunks::<4>();
        assert!(rest.is_empty(), "every value is a f32");
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(values.iter().flat_map(|[_, _, low, high]| [*low, *high]));
        fs::write(self.path, file).expect("the fixture can be written");
    }

    fn place(&self, name: &str) -> Range<usize> {
        let offset = |end: usize| self.start + number(&self.header[name]["data_offsets"][end]);
        offset(0)..offset(1)
    }

    /// Writes the file back.
    pub(crate) fn write(self) {
        fs::write(self.path, self.bytes).expect("the fixture can be written");
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a whole number") as usize
}
