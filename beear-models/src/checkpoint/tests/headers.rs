//! Tests of malicious headers of weights files, and of other JSON of a checkpoint.

use std::fs;
use std::path::Path;

use super::{CheckpointError, load, saved};

/// Writes a weights file with this header and 4096 zeros.
fn with_header(path: &Path, header: &str) {
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length, header.as_bytes(), &[0; 4096]].concat();
    fs::write(path.join("model.safetensors"), file).unwrap();
}

#[test]
fn a_header_that_is_a_bomb_is_refused() {
    let (_dir, path, _) = saved(|_| ());
    let refused = |what: &str| {
        let error = load(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().len() < 1_000, "{what}");
    };
    // The claimed length exceeds the file, the maximum that is read, and the memory.
    for length in [5_000, 100_000_001, u64::MAX / 2, u64::MAX] {
        let file = [&length.to_le_bytes()[..], &[b'{'; 4096]].concat();
        fs::write(path.join("model.safetensors"), file).unwrap();
        refused(&length.to_string());
    }
    for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
        let depth = 100_000;
        with_header(&path, &format!("{{\"a\": {}1{}}}", open.repeat(depth), close.repeat(depth)));
        refused(open);
        let deep = format!("{{\"weight_map\": {}{}}}", open.repeat(depth), close.repeat(depth));
        let index = path.join("model.safetensors.index.json");
        fs::write(&index, &deep).unwrap();
        fs::rename(path.join("model.safetensors"), path.join("aside")).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::MalformedIndex { .. }), "{error}");
        fs::remove_file(index).unwrap();
        fs::rename(path.join("aside"), path.join("model.safetensors")).unwrap();
        let config = path.join("config.json");
        let was = fs::read(&config).unwrap();
        fs::write(&config, &deep).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Config { .. }), "{error}");
        fs::write(&config, was).unwrap();
    }
}

#[test]
fn tensors_that_overlap_or_are_doubled_or_larger_than_they_say_are_refused() {
    let (_dir, path, _) = saved(|_| ());
    let tensor = |shape: &str, at: [u32; 2]| {
        format!(r#"{{"dtype": "F32", "shape": {shape}, "data_offsets": [{}, {}]}}"#, at[0], at[1])
    };
    let [whole, first, last] =
        [tensor("[1024]", [0, 4096]), tensor("[512]", [0, 2048]), tensor("[513]", [2044, 4096])];
    let broken = [
        ("overlapping", format!(r#"{{"a": {first}, "b": {last}}}"#)),
        ("of the same bytes", format!(r#"{{"a": {whole}, "b": {whole}}}"#)),
        ("with a hole", format!(r#"{{"a": {first}, "b": {}}}"#, tensor("[511]", [2052, 4096]))),
        ("doubled", format!(r#"{{"a": {whole}, "a": {whole}}}"#)),
        (
            "doubled in parts",
            format!(r#"{{"a": {first}, "a": {}}}"#, tensor("[512]", [2048, 4096])),
        ),
        ("of another shape", format!(r#"{{"a": {}}}"#, tensor("[1023]", [0, 4096]))),
        (
            "of more bytes than can be counted",
            format!(r#"{{"a": {}}}"#, tensor("[4294967296, 4294967296, 2]", [0, 4096])),
        ),
        ("of negative size", format!(r#"{{"a": {}}}"#, tensor("[-1024]", [0, 4096]))),
        ("backwards", format!(r#"{{"a": {}}}"#, tensor("[1024]", [4096, 0]))),
        ("beyond the file", format!(r#"{{"a": {}}}"#, tensor("[1025]", [0, 4100]))),
    ];
    for (what, header) in broken {
        with_header(&path, &header);
        let error = load(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{what}: {error}");
    }
    with_header(&path, &format!(r#"{{"a": {whole}}}"#));
    let error = load(&path).unwrap_err();
    assert!(
        matches!(error, CheckpointError::Missing { .. }),
        "what is not broken is read: {error}"
    );
}
