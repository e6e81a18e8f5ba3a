//! Memory that Linux control groups leave to this process. In a container it is less than the
//! machine's.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the limit of this process's control groups in bytes, and the bytes of it that are left,
/// or `None` without a limit.
pub(crate) fn memory() -> Option<[u64; 2]> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    tightest(Path::new("/sys/fs/cgroup"), &groups)
}

/// Returns the limit with the fewest bytes left, among the groups named by the lines of `groups`
/// and all their parents.
fn tightest(root: &Path, groups: &str) -> Option<[u64; 2]> {
    let limits = groups.lines().filter_map(|line| Hierarchy::of(root, line)).flat_map(|found| {
        let Hierarchy { root, group, files } = found;
        // In a container the path may be the host's path, and the root the group itself.
        let folders = group.ancestors().map(|group| root.join(group)).collect::<Vec<_>>();
        folders.into_iter().filter_map(move |folder| files.limit(&folder))
    });
    limits.min_by_key(|[_, available]| *available)
}

/// A mounted tree of groups, and the group of this process in it.
struct Hierarchy {
    root: PathBuf,
    group: PathBuf,
    files: Files,
}

impl Hierarchy {
    /// Parses a line `ID:CONTROLLERS:/GROUP`. Returns `None` if the hierarchy does not account
    /// memory.
    fn of(root: &Path, line: &str) -> Option<Self> {
        let (_, line) = line.split_once(':')?;
        let (controllers, group) = line.split_once(':')?;
        let group = PathBuf::from(group.trim_start_matches('/'));
        if controllers.is_empty() {
            return Some(Self { root: root.to_owned(), group, files: V2 });
        }
        let counts = controllers.split(',').any(|name| name == "memory");
        counts.then(|| Self { root: root.join("memory"), group, files: V1 })
    }
}

/// Names of the files of one version of control groups.
#[derive(Clone, Copy)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// Line of `memory.stat` with the cached files that are evicted first when memory is short.
    reclaimable: &'static str,
}

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

const V2: Files =
    Files { limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file" };

impl Files {
    /// Returns the limit of the group in `folder`, and the bytes of it that are left.
    fn limit(self, folder: &Path) -> Option<[u64; 2]> {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
        };
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            (name == self.reclaimable).then(|| bytes.trim().parse::<u64>().ok())?
        });
        let in_use = usage.saturating_sub(cached.unwrap_or(0));
        Some([limit, limit.saturating_sub(in_use)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_above_the_process_counts() {
        let root = tempfile::tempdir().unwrap();
        write(
            &root.path().join("outer/inner"),
            &[("memory.max", "max\n"), ("memory.current", "5\n")],
        );
        let stat = "anon 60\ninactive_file 40\n";
        let outer = [("memory.max", "1000\n"), ("memory.current", "300\n"), ("memory.stat", stat)];
        write(&root.path().join("outer"), &outer);
        // 40 bytes of cached files are counted as free.
        assert_eq!(tightest(root.path(), "0::/outer/inner\n"), Some([1000, 740]));
        assert_eq!(tightest(root.path(), "0::/elsewhere\n"), None);
    }

    #[test]
    fn the_first_version_has_a_tree_for_memory() {
        let root = tempfile::tempdir().unwrap();
        let stat = "inactive_file 7\ntotal_inactive_file 100\n";
        let files = [
            ("memory.limit_in_bytes", "2000\n"),
            ("memory.usage_in_bytes", "1500\n"),
            ("memory.stat", stat),
        ];
        write(&root.path().join("memory/pod"), &files);
        let groups = "9:name=systemd:/\n5:cpu,memory:/pod\n3:cpuset:/\n";
        assert_eq!(tightest(root.path(), groups), Some([2000, 600]));
        // The path of the host does not exist in a container, whose own group is the root.
        write(
            &root.path().join("memory"),
            &[("memory.limit_in_bytes", "900"), ("memory.usage_in_bytes", "1")],
        );
        assert_eq!(tightest(root.path(), "5:memory:/of/the/host\n"), Some([900, 899]));
    }
}
