//! Messages over a pipe: the length in eight bytes, then that many bytes, which are nearly always
//! JSON.

use std::io::{self, ErrorKind, Read, Write};

use beear_models::{PromptFormat, PromptFormatError, SpecialTokens, TextOutput, TokenizerError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message in bytes. A larger length is an error.
const LONGEST: u64 = 1 << 30;

/// First message to the child. The bytes of `tokenizer.json` follow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// Memory limit of the child in bytes.
    pub(super) memory: u64,
    pub(super) format: PromptFormat,
    pub(super) special: SpecialTokens,
}

/// Message of the child once it has read the tokenizer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ready {
    Yes { stop_ids: Vec<u32>, unknown_id: Option<u32>, vocab_size: usize },
    Malformed { reason: String },
}

/// Reply of the child to a task.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done(TextOutput),
    Template { reason: String },
    UserTextLost,
    Tokenizer { reason: String },
}

impl From<Result<TextOutput, PromptFormatError>> for Reply {
    fn from(result: Result<TextOutput, PromptFormatError>) -> Self {
        match result {
            Ok(output) => Self::Done(output),
            Err(PromptFormatError::UserTextLost) => Self::UserTextLost,
            Err(PromptFormatError::Template { reason }) => Self::Template { reason },
            Err(PromptFormatError::Tokenizer(TokenizerError::Failed { reason })) => {
                Self::Tokenizer { reason }
            }
            // The other errors concern files and formats, which the child never sees.
            Err(error) => Self::Template { reason: error.to_string() },
        }
    }
}

impl From<Reply> for Result<TextOutput, PromptFormatError> {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Done(output) => Ok(output),
            Reply::Template { reason } => Err(PromptFormatError::Template { reason }),
            Reply::UserTextLost => Err(PromptFormatError::UserTextLost),
            Reply::Tokenizer { reason } => Err(TokenizerError::Failed { reason }.into()),
        }
    }
}

/// Writes `bytes` as one message.
pub(super) fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(bytes)
}

/// Reads one message. Returns `None` if the other side has ended.
pub(super) fn read_bytes(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u64::from_le_bytes(length);
    if length > LONGEST {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    let n_read = from.take(length).read_to_end(&mut bytes)?;
    if n_read as u64 == length { Ok(Some(bytes)) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Writes `value` as one message of JSON.
pub(super) fn write<T: Serialize>(to: &mut impl Write, value: &T) -> io::Result<()> {
    write_bytes(to, &serde_json::to_vec(value)?)
}

/// Reads one message of JSON. Returns `None` if the other side has ended.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let bytes = read_bytes(from)?;
    Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_order_and_a_cut_one_is_an_error() {
        let mut pipe = Vec::new();
        write(&mut pipe, &Reply::UserTextLost).unwrap();
        write_bytes(&mut pipe, b"{").unwrap();
        let mut from = pipe.as_slice();
        assert!(matches!(read(&mut from).unwrap(), Some(Reply::UserTextLost)));
        assert!(read::<Reply>(&mut from).is_err(), "no JSON");
        assert!(read_bytes(&mut from).unwrap().is_none());
        assert!(read_bytes(&mut &pipe[..pipe.len() - 1][..12]).is_err());
        assert!(read_bytes(&mut [0xff; 12].as_slice()).is_err(), "longer than any message");
    }

    #[test]
    fn failures_of_template_and_tokenizer_keep_their_kind() {
        let failures = [
            PromptFormatError::UserTextLost,
            PromptFormatError::Template { reason: "no".to_owned() },
            TokenizerError::Failed { reason: "no".to_owned() }.into(),
        ];
        for failure in failures {
            let (text, kind) = (failure.to_string(), std::mem::discriminant(&failure));
            let json = serde_json::to_string(&Reply::from(Err(failure))).unwrap();
            let reply: Reply = serde_json::from_str(&json).unwrap();
            let back: Result<TextOutput, PromptFormatError> = reply.into();
            let back = back.unwrap_err();
            assert_eq!((back.to_string(), std::mem::discriminant(&back)), (text, kind));
        }
    }
}
