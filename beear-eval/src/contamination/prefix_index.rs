//! Inverted index of the rarest members of sets, exact for a threshold of Jaccard similarity.
//!
//! Let the members of every set be in one order, the rarest first. Two sets $r$, $s$ of similarity
//! at least $t$ share at least
//! $\alpha = \lceil \frac{t}{1+t} (|r| + |s|) \rceil \ge \lceil t\,|r| \rceil$ members, and
//! $t\,|r| \le |s| \le |r| / t$. Their first shared member, at the places $i$ of $r$ and $j$ of
//! $s$, has $i \le |r| - \alpha$ and $j \le |s| - \alpha$: after it come $\alpha - 1$ others. Only
//! these places are read, and every candidate is compared in full.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Index of sets of hashes for similarity queries.
pub(super) struct PrefixIndex {
    near: f64,
    /// Rank of each hash, the rarest first.
    ranks: Ranks,
    /// Ranks of each set in ascending order; empty for a removed set.
    sets: Vec<Vec<u32>>,
    /// First members of every set, ordered by rank, size of the set and place.
    postings: Vec<Posting>,
    /// Index of the first posting of each rank, followed by the number of postings.
    starts: Vec<usize>,
    /// Number of the last query that each set was a candidate of.
    candidate_of: Vec<u64>,
    n_queries: u64,
    /// Number of removed sets that still have postings.
    n_stale: usize,
}

/// Map from hash to rank. Word hashes need no further hashing, because their bits are already
/// spread.
type Ranks = HashMap<u64, u32, BuildHasherDefault<AsItIs>>;

/// Hasher that returns the hash unchanged.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash.rotate_left(8) ^ u64::from(byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Member of a set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Posting {
    rank: u32,
    /// Number of members of the set.
    size: u32,
    /// Place of this member in the set.
    place: u32,
    set: u32,
}

impl PrefixIndex {
    /// Builds an index of `sets`, each in ascending order, for queries with a similarity of at
    /// least `near`.
    pub(super) fn new(sets: Vec<Vec<u64>>, near: f64) -> Self {
        let near = if near.is_nan() { 0.0 } else { near }.clamp(f64::MIN_POSITIVE, 1.0);
        let ranks = ranks(&sets);
        let ranked = |set: Vec<u64>| {
            let mut set: Vec<u32> = set.iter().map(|hash| ranks[hash]).collect();
            set.sort_unstable();
            set
        };
        let sets: Vec<Vec<u32>> = sets.into_iter().map(ranked).collect();
        let mut postings = Vec::new();
        for (set, members) in (0..).zip(&sets) {
            let n_places = (members.len() + 1).saturating_sub(least_shared(near, members.len()));
            let size = members.len() as u32;
            let first = members[..n_places].iter().zip(0..);
            postings.extend(first.map(|(&rank, place)| Posting { rank, size, place, set }));
        }
        postings.sort_unstable();
        let candidate_of = vec![0; sets.len()];
        let starts = starts(&postings, ranks.len());
        Self { near, ranks, sets, postings, starts, candidate_of, n_queries: 0, n_stale: 0 }
    }

    /// Removes `set` from all later queries.
    pub(super) fn remove(&mut self, set: usize) {
        let removed = std::mem::take(&mut self.sets[set]);
        self.n_stale += usize::from(!removed.is_empty());
        // Queries skip the postings of removed sets one by one, so they are kept below half of all
        // postings.
        if 2 * self.n_stale > self.sets.len() {
            self.n_stale = 0;
            self.postings.retain(|posting| !self.sets[posting.set as usize].is_empty());
            self.starts = starts(&self.postings, self.ranks.len());
        }
    }

    /// Returns the sets that are similar to `query`, in ascending order; `query` has no duplicate
    /// hashes.
    pub(super) fn similar(&mut self, query: &[u64]) -> Vec<usize> {
        let (n, least) = (query.len(), least_shared(self.near, query.len()));
        let Some(known) = self.known(query, least) else { return Vec::new() };
        self.n_queries += 1;
        let mut similar = Vec::new();
        // Hashes that occur in no set are rarer than all others.
        for (place, &rank) in (n - known.len()..=n - least).zip(&known) {
            let rank = rank as usize;
            let postings = &self.postings[self.starts[rank]..self.starts[rank + 1]];
            for posting in within_reach(postings, (place, n), self.near) {
                let set = posting.set as usize;
                let before = std::mem::replace(&mut self.candidate_of[set], self.n_queries);
                let members = &self.sets[set];
                if before == self.n_queries || members.is_empty() {
                    continue;
                }
                let shared = n_shared(&known, members, least);
                if shared as f64 >= self.near * (n + members.len() - shared) as f64 {
                    similar.push(set);
                }
            }
        }
        similar.sort_unstable();
        similar
    }

    /// Returns the ranks of the hashes of `query` that occur in any set, in ascending order; None
    /// if there are fewer than `least`.
    fn known(&self, query: &[u64], least: usize) -> Option<Vec<u32>> {
        let mut known = Vec::with_capacity(query.len());
        let mut n_left = query.len();
        for hash in query {
            if known.len() + n_left < least {
                return None;
            }
            known.extend(self.ranks.get(hash));
            n_left -= 1;
        }
        known.sort_unstable();
        (known.len() >= least).then_some(known)
    }
}

/// Returns the `postings` of one rank whose sets may be similar to a set of `n` members that has
/// this rank at `place` and shares no earlier member.
fn within_reach(
    mut postings: &[Posting],
    (place, n): (usize, usize),
    near: f64,
) -> impl Iterator<Item = &Posting> {
    let (shortest, longest) = (least_shared(near, n), n as f64 / near + ROUNDING);
    let too_short = postings.partition_point(|posting| (posting.size as usize) < shortest);
    postings = &postings[too_short..];
    std::iter::from_fn(move || {
        let size = postings.first()?.size;
        if f64::from(size) > longest {
            return None;
        }
        let n_of_size = postings.partition_point(|posting| posting.size == size);
        let of_size;
        (of_size, postings) = postings.split_at(n_of_size);
        let shared = least(near / (1.0 + near) * (n + size as usize) as f64);
        // A removed set may be longer than all remaining sets.
        let n_reached = match (size as usize).checked_sub(shared) {
            Some(last) if place + shared <= n => {
                of_size.partition_point(|posting| posting.place as usize <= last)
            }
            _ => 0,
        };
        Some(&of_size[..n_reached])
    })
    .flatten()
}

/// Returns the rank of each hash in ascending order of the number of sets that contain it.
fn ranks(sets: &[Vec<u64>]) -> Ranks {
    let mut counts = Ranks::default();
    sets.iter().flatten().for_each(|&hash| *counts.entry(hash).or_default() += 1);
    let mut order: Vec<(u32, u64)> = counts.iter().map(|(&hash, &count)| (count, hash)).collect();
    order.sort_unstable();
    for (rank, (_, hash)) in (0..).zip(order) {
        counts.insert(hash, rank);
    }
    counts
}

/// Returns the index of the first posting of each rank, followed by the end of the last.
fn starts(postings: &[Posting], n_ranks: usize) -> Vec<usize> {
    let mut starts = Vec::with_capacity(n_ranks + 1);
    let mut next = 0;
    for rank in 0..=n_ranks {
        while postings.get(next).is_some_and(|posting| (posting.rank as usize) < rank) {
            next += 1;
        }
        starts.push(next);
    }
    starts
}

/// Upper bound of the rounding error of a product of counts and shares: a bound may be too low by
/// one, never too high.
const ROUNDING: f64 = 1e-6;

/// Returns the smallest number of shared members that is not below `bound`.
fn least(bound: f64) -> usize {
    ((bound - ROUNDING).ceil() as usize).max(1)
}

/// Returns the minimum number of members that a set of `n` shares with every similar set.
fn least_shared(near: f64, n: usize) -> usize {
    least(near * n as f64)
}

/// Counts the common members of two ascending sets; 0 if fewer than `least`.
fn n_shared(mut a: &[u32], mut b: &[u32], least: usize) -> usize {
    let mut shared = 0;
    while let ([first, a_rest @ ..], [second, b_rest @ ..]) = (a, b) {
        if shared + a.len().min(b.len()) < least {
            return 0;
        }
        match first.cmp(second) {
            Ordering::Less => a = a_rest,
            Ordering::Greater => b = b_rest,
            Ordering::Equal => {
                shared += 1;
                (a, b) = (a_rest, b_rest);
            }
        }
    }
    shared
}
