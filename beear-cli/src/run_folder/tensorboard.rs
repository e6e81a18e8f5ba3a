//! Events in the format of TensorBoard: records of protocol buffers in a file, one file per
//! process.
//!
//! A record is its length, a checksum of the length, an `Event`, and a checksum of the event, as
//! defined in TensorFlow's `record_writer.h`. The messages have the few fields of `event.proto` and
//! `summary.proto` that scalars need.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use beear_core::Event;
use prost::Message;

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional, because a plain zero is left out and TensorBoard then skips the scalar.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`: scalars in other files from this step on no longer count.
const START: i32 = 1;

/// Counts of steps of each kind so far, which number the scalars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inner: i64,
    pub(crate) outer: i64,
    pub(crate) rounds: i64,
}

impl Counts {
    /// Counts an event by its name.
    pub(crate) fn add(&mut self, name: &str) {
        match name {
            "inner_step" => self.inner += 1,
            "outer_step" => self.outer += 1,
            "round_ended" => self.rounds += 1,
            _ => {}
        }
    }
}

/// A file of events that is being written.
pub(crate) struct TensorBoard {
    file: BufWriter<File>,
    counts: Counts,
}

impl TensorBoard {
    /// Creates a file in `folder` that continues after `counts`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn create(folder: &Path, counts: Counts) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let time = wall_time();
        let name = format!("events.out.tfevents.{}.{}", time as u64, std::process::id());
        let mut board = Self { file: BufWriter::new(File::create(folder.join(name))?), counts };
        let version = Some("brain.Event:2".to_owned());
        board.write(&Record { wall_time: time, file_version: version, ..Record::default() })?;
        for step in [counts.inner, counts.outer, counts.rounds] {
            let session_log = Some(SessionLog { status: START });
            board.write(&Record { wall_time: time, step, session_log, ..Record::default() })?;
        }
        Ok(board)
    }

    /// Adds the measurements of an event.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        let Counts { inner, outer, rounds } = self.counts;
        match event {
            Event::InnerStep { loss, .. } => {
                self.counts.inner += 1;
                self.scalars(inner, &[("inner/loss", *loss)])
            }
            Event::OuterStep { terms, gradient_norm, learning_rate, .. } => {
                self.counts.outer += 1;
                self.scalars(
                    outer,
                    &[
                        ("outer/safety", terms.safety),
                        ("outer/performance", terms.performance),
                        ("outer/divergence", terms.divergence),
                        ("outer/gradient_norm", *gradient_norm),
                        ("outer/learning_rate", *learning_rate),
                    ],
                )
            }
            Event::RoundEnded { validation, .. } => {
                self.counts.rounds += 1;
                let tag = |(name, _): &(&str, _)| format!("round/{name}");
                let checks: Vec<_> = validation.checks().collect();
                let tags: Vec<String> = checks.iter().map(tag).collect();
                let values = checks.iter().map(|(_, check)| check.after);
                let values: Vec<_> = tags.iter().map(String::as_str).zip(values).collect();
                self.scalars(rounds, &values)?;
                self.file.flush()
            }
            _ => Ok(()),
        }
    }

    fn scalars(&mut self, step: i64, values: &[(&str, f64)]) -> io::Result<()> {
        let scalar = |(tag, value): &(&str, f64)| Scalar {
            tag: (*tag).to_owned(),
            simple_value: Some(*value as f32),
        };
        let summary = Some(Summary { value: values.iter().map(scalar).collect() });
        self.write(&Record { wall_time: wall_time(), step, summary, ..Record::default() })
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let content = record.encode_to_vec();
        let length = (content.len() as u64).to_le_bytes();
        for part in [length.as_slice(), &content] {
            self.file.write_all(part)?;
            self.file.write_all(&masked_checksum(part).to_le_bytes())?;
        }
        Ok(())
    }

    /// Writes all buffered records to the file.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns the CRC-32C, rotated and shifted as in TensorFlow.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the records of a file after checking their checksums.
    fn records(mut bytes: &[u8]) -> Vec<Record> {
        let mut take = |n: usize| -> Vec<u8> {
            let (part, rest) = bytes.split_at(n);
            bytes = rest;
            part.to_vec()
        };
        let mut records = Vec::new();
        loop {
            let length = take(8);
            assert_eq!(take(4), masked_checksum(&length).to_le_bytes());
            let length = u64::from_le_bytes(length.try_into().unwrap());
            let content = take(length as usize);
            assert_eq!(take(4), masked_checksum(&content).to_le_bytes());
            records.push(Record::decode(content.as_slice()).unwrap());
            if records.len() == 6 {
                return records;
            }
        }
    }

    #[test]
    fn a_checksum_is_that_of_tensorflow() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(
            masked_checksum(&[0; 32]),
            0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }

    #[test]
    fn scalars_go_on_after_those_of_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let counts = Counts { inner: 7, outer: 3, rounds: 1 };
        let mut board = TensorBoard::create(folder.path(), counts).unwrap();
        for loss in [0.5, 0.0] {
            board.event(&Event::InnerStep { step: 0, loss }).unwrap();
        }
        board.flush().unwrap();
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let records = records(&std::fs::read(file).unwrap());
        assert_eq!(records[0].file_version.as_deref(), Some("brain.Event:2"));
        let scalars: Vec<(i64, Option<f32>)> = records[4..]
            .iter()
            .map(|record| (record.step, record.summary.as_ref().unwrap().value[0].simple_value))
            .collect();
        assert_eq!(scalars, [(7, Some(0.5)), (8, Some(0.0))]);
    }
}
