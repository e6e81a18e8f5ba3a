//! Text of a file: UTF-8 or UTF-16. A file that keeps its rows in a container is refused by name.

use std::path::Path;

use super::DatasetError;

/// Kind of file that is not text.
struct Container {
    /// First bytes of such a file.
    magic: &'static [u8],
    /// Name of the kind, with its article.
    name: &'static str,
    hint: &'static str,
}

const EXPORT: &str = "export the rows as JSONL";
const UNPACK: &str = "unpack it and name the file inside: JSON, JSONL or CSV is read";

const CONTAINERS: [Container; 14] = [
    Container {
        magic: b"PAR1",
        name: "a Parquet file",
        hint: "export the rows as JSONL: in Python, \
            `pandas.read_parquet(file).to_json(out, orient=\"records\", lines=True)`",
    },
    Container { magic: b"ARROW1", name: "an Arrow file", hint: EXPORT },
    Container { magic: b"\xff\xff\xff\xff", name: "an Arrow stream", hint: EXPORT },
    Container { magic: b"SQLite format 3\0", name: "an SQLite database", hint: EXPORT },
    Container { magic: b"\x89HDF", name: "an HDF5 file", hint: EXPORT },
    Container { magic: b"Obj\x01", name: "an Avro file", hint: EXPORT },
    Container {
        magic: b"PK\x03\x04",
        name: "a zip archive or an Excel workbook",
        hint: "unpack the archive, or save the sheet of the workbook as CSV",
    },
    Container {
        magic: b"\xd0\xcf\x11\xe0",
        name: "an Excel workbook",
        hint: "save the sheet of the workbook as CSV",
    },
    Container { magic: b"\x1f\x8b", name: "a gzip file", hint: UNPACK },
    Container { magic: b"BZh", name: "a bzip2 file", hint: UNPACK },
    Container { magic: b"\xfd7zXZ\0", name: "an xz file", hint: UNPACK },
    Container { magic: b"\x28\xb5\x2f\xfd", name: "a zstd file", hint: UNPACK },
    Container { magic: b"7z\xbc\xaf", name: "a 7z archive", hint: UNPACK },
    Container {
        magic: b"version https://git-lfs",
        name: "a pointer of Git LFS",
        hint: "fetch the file itself: `git lfs pull`",
    },
];

/// Decodes the bytes of a file, without the byte order mark.
///
/// # Errors
///
/// Returns [`DatasetError::Container`] or [`DatasetError::NotUtf8`].
pub(super) fn text(bytes: Vec<u8>, path: &Path) -> Result<String, DatasetError> {
    if let Some(container) = CONTAINERS.iter().find(|c| bytes.starts_with(c.magic)) {
        let &Container { name, hint, .. } = container;
        return Err(DatasetError::Container { path: path.to_owned(), name, hint });
    }
    let text = match byte_order(&bytes) {
        Some(unit) => utf16(&bytes, unit),
        None => String::from_utf8(bytes).ok(),
    };
    let mut text = text.ok_or_else(|| DatasetError::NotUtf8 { path: path.to_owned() })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

/// Returns the decoder of a UTF-16 unit; None if the text is not UTF-16. Text without a byte order
/// mark is UTF-16 if every other of its first bytes is zero.
fn byte_order(bytes: &[u8]) -> Option<fn([u8; 2]) -> u16> {
    match bytes {
        // The byte order mark of UTF-32.
        [0xff, 0xfe, 0, 0, ..] => None,
        [0xff, 0xfe, ..] | [1..=255, 0, 1..=255, 0, ..] => Some(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, 1..=255, 0, 1..=255, ..] => Some(u16::from_be_bytes),
        _ => None,
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let pairs = bytes.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    char::decode_utf16(pairs.map(|pair| unit([pair[0], pair[1]]))).collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<String, DatasetError> {
        text(bytes.to_vec(), Path::new("file"))
    }

    fn encoded(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn utf_16_is_read_in_both_byte_orders() {
        let text = "goal,target\nöffne 🗝,\"Sure\"\n";
        assert_eq!(decoded(text.as_bytes()).unwrap(), text);
        for mark in ["", "\u{feff}"] {
            let marked = format!("{mark}{text}");
            assert_eq!(decoded(&encoded(&marked, u16::to_le_bytes)).unwrap(), text);
            assert_eq!(decoded(&encoded(&marked, u16::to_be_bytes)).unwrap(), text);
            assert_eq!(decoded(marked.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn damaged_utf_16_and_other_encodings_are_refused() {
        let half_a_pair = [0xff, 0xfe, 0x3d, 0xd8];
        let half_a_unit = [0xff, 0xfe, b'a', 0, b'b'];
        let utf_32 = [0xff, 0xfe, 0, 0, b'a', 0, 0, 0];
        for bytes in [&half_a_pair[..], &half_a_unit, &utf_32, b"goal\ncaf\xe9\n"] {
            assert!(matches!(decoded(bytes), Err(DatasetError::NotUtf8 { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn a_container_is_refused_by_name() {
        for (magic, said) in [
            (&b"PAR1xyz\x80\x81PAR1"[..], "`file` is a Parquet file, not text"),
            (b"\x1f\x8b\x08\0", "`file` is a gzip file, not text"),
            (b"PK\x03\x04\x14\0", "`file` is a zip archive or an Excel workbook, not text"),
            (b"BZh91AY", "`file` is a bzip2 file, not text"),
            (b"\xfd7zXZ\0\0", "`file` is an xz file, not text"),
            (b"\x28\xb5\x2f\xfd\x04", "`file` is a zstd file, not text"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "`file` is a pointer of Git LFS, not text",
            ),
        ] {
            let error = decoded(magic).unwrap_err();
            assert_eq!(error.to_string(), said);
            assert!(error.hint().is_some());
        }
        let parquet = decoded(b"PAR1").unwrap_err();
        assert!(parquet.hint().unwrap().starts_with("export the rows as JSONL"));
    }
}
