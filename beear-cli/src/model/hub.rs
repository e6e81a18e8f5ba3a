//! Models of a hub with the interface of huggingface.co, downloaded into the cache of Hugging
//! Face's own library.

mod address;
mod authorities;
mod cache;
mod client;
mod content_hash;
mod download;
mod error;
mod name;
mod needed_files;
mod settings;
mod token;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use error::HubError;
pub(crate) use name::{HubName, Origin};
pub(crate) use needed_files::Needed;

use cache::RepositoryCache;
use client::{Client, Listing};
use download::Download;
use name::Commit;
use settings::Settings;

use crate::display::console::Console;

/// A model of a hub on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) folder: PathBuf,
    pub(crate) origin: Origin,
}

/// Finds a model in the cache, and downloads the files that are missing. A commit that is complete
/// needs no request, and offline none is made.
///
/// # Errors
///
/// If the model cannot be obtained, or is of a kind that is not supported.
pub(crate) fn fetch(name: &HubName, needed: Needed, console: Console) -> Result<Fetched> {
    let settings = Settings::of_environment()?;
    if settings.is_offline {
        return Ok(cached_by(&settings, name, needed)?);
    }
    let cache = RepositoryCache::new(&settings.cache, &name.repository);
    let cached = whole(&cache, name, needed);
    if let Some(cached) = cached.clone().filter(|_| name.revision.commit().is_some()) {
        return Ok(cached);
    }
    let client = Client::new(&settings)?;
    let listing = match (client.listing(name), cached) {
        (Ok(listing), _) => listing,
        (Err(error), Some(cached)) if error.is_silence() => {
            console.say(&format!("{error}: using `{}` of the cache", cached.origin));
            return Ok(cached);
        }
        (Err(error), _) => return Err(error.into()),
    };
    let download =
        Download { client: &client, cache: &cache, name, commit: &listing.commit, console };
    download_missing(&download, &listing, needed)?;
    cache.refer(&name.revision, &listing.commit)?;
    Ok(found(&cache, name, listing.commit))
}

/// Finds a model in the cache without a request.
///
/// # Errors
///
/// If the cache does not have all of it.
pub(crate) fn cached(name: &HubName, needed: Needed) -> Result<Fetched, HubError> {
    cached_by(&Settings::of_environment()?, name, needed)
}

fn cached_by(settings: &Settings, name: &HubName, needed: Needed) -> Result<Fetched, HubError> {
    let cache = RepositoryCache::new(&settings.cache, &name.repository);
    let (name_at, root) = (name.to_string(), settings.cache.clone());
    whole(&cache, name, needed).ok_or(HubError::NotCached { name: name_at, cache: root })
}

/// Returns the cached model if all needed files are there.
fn whole(cache: &RepositoryCache, name: &HubName, needed: Needed) -> Option<Fetched> {
    let commit = cache.commit_of(&name.revision)?;
    let is_whole = needed_files::is_whole(&cache.snapshot(&commit), needed);
    is_whole.then(|| found(cache, name, commit))
}

fn found(cache: &RepositoryCache, name: &HubName, commit: Commit) -> Fetched {
    Fetched { folder: cache.snapshot(&commit), origin: Origin::new(name, &commit) }
}

/// Downloads the needed files: first the small ones, which name the others, then those.
fn download_missing(download: &Download<'_>, listing: &Listing, needed: Needed) -> Result<()> {
    let Listing { commit, files } = listing;
    needed_files::refuse_escaping(files)?;
    let folder = download.cache.snapshot(commit);
    let repository = download.name.repository.as_str();
    let small = needed_files::small(repository, files, needed)?;
    let is_sharded = small.iter().any(|file| file == needed_files::INDEX);
    if needed == Needed::Everything && !is_sharded {
        // A model that cannot be read is rejected before its first download.
        needed_files::weights(repository, files, &folder)?;
    }
    download_files(download, &small)?;
    if needed == Needed::Everything {
        let weights = needed_files::weights(repository, files, &folder)?;
        download_files(download, &weights)?;
    }
    Ok(())
}

/// Downloads the files that the folder of the commit does not have, if the disk has room for them.
fn download_files(download: &Download<'_>, files: &[String]) -> Result<(), HubError> {
    let &Download { client, cache, name, commit, console } = download;
    let folder = cache.snapshot(commit);
    let files = files.iter().filter(|file| !folder.join(file).is_file());
    let files = files.map(|file| client.describe(name, commit, file));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    if files.is_empty() {
        return Ok(());
    }
    cache.prepare(commit)?;
    let needed = files.iter().map(|file| download.missing(file)).sum();
    if let Ok(free) = fs4::available_space(cache.root())
        && free < needed
    {
        return Err(HubError::NoSpace { needed, free, cache: cache.root().to_owned() });
    }
    let what = format!("downloading {}", name.repository.as_str());
    let bar = console.byte_bar(&what, files.iter().map(|file| file.size).sum());
    for file in &files {
        bar.set_message(crate::display::terminal::harmless(&file.name));
        download.fetch(file, &bar)?;
    }
    bar.finish_and_clear();
    Ok(())
}
