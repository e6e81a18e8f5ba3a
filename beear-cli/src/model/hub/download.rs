//! Download of one file from a hub into the cache, in parts if needed. The file gets its name only
//! if its hash is right.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use indicatif::ProgressBar;

use super::HubError;
use super::cache::{RepositoryCache, unwritable};
use super::client::{Client, Content, RemoteFile};
use super::content_hash::Hasher;
use super::name::{Commit, HubName};
use crate::display::console::Console;

/// Maximum number of consecutive tries that bring nothing.
const FRUITLESS_TRIES: usize = 2;

const PAUSE: Duration = Duration::from_secs(1);

/// Source and destination of downloads.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) cache: &'a RepositoryCache,
    pub(super) name: &'a HubName,
    pub(super) commit: &'a Commit,
    pub(super) console: Console,
}

impl Download<'_> {
    /// Downloads a file into the cache and links it into the folder of the commit. A cached file is
    /// not requested again.
    ///
    /// # Errors
    ///
    /// [`HubError`]. The bytes downloaded so far stay, unless they are wrong.
    pub(super) fn fetch(&self, file: &RemoteFile, bar: &ProgressBar) -> Result<(), HubError> {
        let blob = self.cache.blob(&file.hash);
        let is_there = || fs::metadata(&blob).is_ok_and(|found| found.len() == file.size);
        if is_there() {
            bar.inc(file.size);
        } else {
            let _lock = self.cache.lock(&file.hash, self.console)?;
            if is_there() {
                bar.inc(file.size);
            } else {
                self.bring(file, bar)?;
            }
        }
        self.cache.link(self.commit, &file.name, &file.hash)
    }

    /// Returns the number of bytes of a file that are missing.
    pub(super) fn missing(&self, file: &RemoteFile) -> u64 {
        let length = |path: PathBuf| fs::metadata(path).map_or(0, |found| found.len());
        let blob = length(self.cache.blob(&file.hash));
        let there = blob.max(length(self.cache.incomplete(&file.hash)));
        file.size.saturating_sub(there)
    }

    fn bring(&self, file: &RemoteFile, bar: &ProgressBar) -> Result<(), HubError> {
        let mut part = Part::open(self.cache.incomplete(&file.hash), file)?;
        bar.inc(part.length);
        let mut n_fruitless = 0;
        while part.length < file.size {
            let before = part.length;
            let error = match self.advance(&mut part, file, bar) {
                Ok(()) => continue,
                Err(error) if error.is_silence() => error,
                Err(error) => return Err(error),
            };
            n_fruitless = if part.length > before { 0 } else { n_fruitless + 1 };
            if n_fruitless == FRUITLESS_TRIES {
                return Err(error);
            }
            if n_fruitless > 0 {
                sleep(PAUSE);
            }
        }
        if part.length > file.size || !file.hash.is_of(part.hasher) {
            fs::remove_file(&part.path).map_err(unwritable(&part.path))?;
            let repository = self.name.repository.as_str().to_owned();
            return Err(HubError::WrongHash { repository, file: file.name.clone() });
        }
        part.file.sync_all().map_err(unwritable(&part.path))?;
        fs::rename(&part.path, self.cache.blob(&file.hash)).map_err(unwritable(&part.path))
    }

    /// Reads the content of one request.
    fn advance(
        &self,
        part: &mut Part,
        file: &RemoteFile,
        bar: &ProgressBar,
    ) -> Result<(), HubError> {
        let from = (file.name.as_str(), part.length);
        let Content { offset, body } = self.client.open(self.name, self.commit, from)?;
        if offset == 0 && part.length > 0 {
            bar.dec(part.length);
            part.restart(file)?;
        }
        // Reading one byte more than expected shows that the server sends too much.
        let mut body = body.take(file.size - part.length + 1);
        let mut piece = vec![0; 1 << 16];
        loop {
            let n_bytes = match body.read(&mut piece) {
                Ok(0) if part.length < file.size => {
                    return Err(self.client.broken("the connection ended early"));
                }
                Ok(0) => return Ok(()),
                Ok(n_bytes) => n_bytes,
                Err(error) => return Err(self.client.broken(&error.to_string())),
            };
            part.add(&piece[..n_bytes])?;
            bar.inc(n_bytes as u64);
        }
    }
}

/// An incomplete file.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    /// Hasher that has seen all bytes of the file.
    hasher: Hasher,
}

impl Part {
    /// Opens the bytes of earlier tries. Starts again if there are more than the whole file has.
    fn open(path: PathBuf, whole: &RemoteFile) -> Result<Self, HubError> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(unwritable(&path))?;
        let hasher = whole.hash.hasher(whole.size);
        let mut part = Self { path, file, length: 0, hasher };
        part.read_again()?;
        if part.length > whole.size {
            part.restart(whole)?;
        }
        Ok(part)
    }

    fn read_again(&mut self) -> Result<(), HubError> {
        let mut piece = vec![0; 1 << 16];
        loop {
            let n_bytes = self.file.read(&mut piece);
            let n_bytes = n_bytes
                .map_err(|source| HubError::Unreadable { path: self.path.clone(), source })?;
            if n_bytes == 0 {
                return Ok(());
            }
            self.hasher.update(&piece[..n_bytes]);
            self.length += n_bytes as u64;
        }
    }

    fn restart(&mut self, whole: &RemoteFile) -> Result<(), HubError> {
        let empty = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        empty.map_err(unwritable(&self.path))?;
        self.length = 0;
        self.hasher = whole.hash.hasher(whole.size);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(unwritable(&self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}
