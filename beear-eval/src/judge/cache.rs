//! Cache of replies on disk, which avoids repeated and repeatedly paid requests.
//!
//! The file has a line `{"key": .., "reply": ..}` for each reply, appended and passed to the
//! operating system at once. A killed process leaves at most an incomplete last line. Damaged lines
//! are skipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::chat::Reply;
use super::error::JudgeError;

/// Cache of replies by the key of their request.
#[derive(Debug)]
pub struct ReplyCache {
    n_damaged: usize,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    replies: BTreeMap<String, Reply>,
    file: Option<(PathBuf, File)>,
    /// True if the file ends with an incomplete line.
    is_torn: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    reply: Reply,
}

impl ReplyCache {
    /// Creates a cache in memory only.
    #[must_use]
    pub fn in_memory() -> Self {
        let content = Content { replies: BTreeMap::new(), file: None, is_torn: false };
        Self { n_damaged: 0, content: Mutex::new(content) }
    }

    /// Opens the cache in the file `path`, and creates the file if it is missing. The folder must
    /// exist.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Io`] if the file cannot be read or created.
    pub fn open(path: &Path) -> Result<Self, JudgeError> {
        let failed = |error| JudgeError::io(path, error);
        let bytes = match beear_input::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other.map_err(failed)?,
        };
        let mut replies = BTreeMap::new();
        let mut n_damaged = 0;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
        {
            match serde_json::from_slice(line) {
                Ok(Line { key, reply }) => drop(replies.insert(key, reply)),
                Err(_) => n_damaged += 1,
            }
        }
        let is_torn = bytes.last().is_some_and(|byte| *byte != b'\n');
        let file = File::options().append(true).create(true).open(path).map_err(failed)?;
        let content = Content { replies, file: Some((path.to_owned(), file)), is_torn };
        Ok(Self { n_damaged, content: Mutex::new(content) })
    }

    /// Returns the number of damaged lines that were skipped when the file was read.
    #[must_use]
    pub fn n_damaged(&self) -> usize {
        self.n_damaged
    }

    /// Returns the number of replies.
    #[must_use]
    pub fn n_replies(&self) -> usize {
        self.content().replies.len()
    }

    /// Returns the reply to the request with `key`; None if it is not cached.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Reply> {
        self.content().replies.get(key).cloned()
    }

    /// Removes the reply to the request with `key` until another one is stored. The file remains
    /// unchanged; of two replies to a request in the file, the later one is valid.
    pub fn forget(&self, key: &str) {
        self.content().replies.remove(key);
    }

    /// Stores `reply`, in the file too before this method returns.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Io`] if the file cannot be written; the incomplete line is skipped
    /// when the file is next read.
    ///
    /// # Panics
    ///
    /// Never panics: text can be written as JSON.
    pub fn put(&self, key: &str, reply: &Reply) -> Result<(), JudgeError> {
        let line = Line { key: key.to_owned(), reply: reply.clone() };
        let line = serde_json::to_string(&line).expect("text is JSON");
        let content = &mut *self.content();
        if let Some((path, file)) = &mut content.file {
            let start = if content.is_torn { "\n" } else { "" };
            content.is_torn = true;
            let written = file.write_all(format!("{start}{line}\n").as_bytes());
            written.and_then(|()| file.flush()).map_err(|error| JudgeError::io(path, error))?;
            content.is_torn = false;
        }
        content.replies.insert(key.to_owned(), reply.clone());
        Ok(())
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().expect("nothing panics while it holds the cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::Finish;

    fn reply(text: &str) -> Reply {
        Reply { text: text.to_owned(), finish: Some(Finish::Stop) }
    }

    #[test]
    fn a_file_torn_anywhere_loses_its_last_reply_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replies.jsonl");
        let texts = ["Score: 1", "two\nlines \"quoted\" ü\u{2028}", "Score: 3"];
        let cache = ReplyCache::open(&path).unwrap();
        for (key, text) in ["a", "b", "c"].into_iter().zip(texts) {
            cache.put(key, &reply(text)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        let start_of_last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        for length in start_of_last..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let torn = ReplyCache::open(&path).unwrap();
            // A line that lacks only its line break is complete.
            let n_expected = if length == whole.len() - 1 { 3 } else { 2 };
            assert_eq!(torn.n_replies(), n_expected, "{length}");
            assert_eq!(torn.get("b"), Some(reply(texts[1])));
            torn.put("d", &reply("again")).unwrap();
            torn.put("e", &reply("more")).unwrap();
            let resumed = ReplyCache::open(&path).unwrap();
            assert_eq!(resumed.n_replies(), n_expected + 2, "{length}");
            assert_eq!(resumed.get("d"), Some(reply("again")));
        }
    }

    #[test]
    fn a_file_of_rubbish_is_an_empty_cache_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replies.jsonl");
        std::fs::write(&path, b"\xff\xfe\n{}\n\n{\"key\": 3}\n").unwrap();
        let cache = ReplyCache::open(&path).unwrap();
        assert_eq!((cache.n_replies(), cache.n_damaged()), (0, 3));
        assert!(matches!(ReplyCache::open(folder.path()), Err(JudgeError::Io { .. })));
    }
}
