//! Which folders have to be watched, and for which names, so that no replacement of a file goes unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WatchSet(BTreeMap<PathBuf, Names>);

#[derive(Debug, PartialEq, Eq)]
enum Names {
    All,
    Some(BTreeSet<OsString>),
}

impl WatchSet {
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let mut places = Self::default();
        for file in files {
            places.add_path(file);
            if let Ok(folder) = fs::canonicalize(file)
                && folder.is_dir()
            {
                places.add_folder(folder);
            }
        }
        places
    }

    pub(super) fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }

    pub(super) fn matter(&self, path: &Path) -> bool {
        let named = || match self.0.get(path.parent()?)? {
            Names::All => Some(true),
            Names::Some(names) => Some(names.contains(path.file_name()?)),
        };
        // The folder itself: it was moved or deleted.
        self.0.contains_key(path) || named() == Some(true)
    }

    fn add_path(&mut self, path: &Path) {
        for (folder, name) in steps(path) {
            match self.0.entry(folder).or_insert_with(|| Names::Some(BTreeSet::new())) {
                Names::All => {}
                Names::Some(names) => drop(names.insert(name)),
            }
        }
    }

    fn add_folder(&mut self, folder: PathBuf) {
        for entry in fs::read_dir(&folder).into_iter().flatten().take(MAX_LINKS).flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                self.add_path(&entry.path());
            }
        }
        self.0.insert(folder, Names::All);
    }
}

/// Of a folder with more links, the targets of the rest are left to the poll; as many as are read.
const MAX_LINKS: usize = 4096;

/// As many links as Linux follows in a path before it says ELOOP (path_resolution(7)).
const MAX_HOPS: usize = 40;

/// Every entry on the path from the root to a file that can lead elsewhere later: each symlink, the file itself, and
/// the folder it is in. As (folder, name in it).
///
/// The folders above are left to the poll: they are rarely replaced, and watching them would mean an event for every
/// change in `/` or `/tmp`.
fn steps(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut here = PathBuf::from("/");
    let mut ahead = reversed(path);
    let mut steps = Vec::new();
    let mut hops = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let link = fs::read_link(&next).ok();
        steps.push((here.clone(), name, link.is_some()));
        match link {
            Some(_) if hops == MAX_HOPS => break,
            Some(target) => {
                hops += 1;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                ahead.extend(reversed(&target));
            }
            None if next.exists() => here = next,
            // The path ends here, for now.
            None => break,
        }
    }
    let last_two = steps.len().saturating_sub(2);
    let kept = steps.into_iter().enumerate().filter(|(at, (.., link))| *link || *at >= last_two);
    kept.map(|(_, (folder, name, _))| (folder, name)).collect()
}

/// The names in a path, the first one last, without the root and `.`.
fn reversed(path: &Path) -> Vec<OsString> {
    let step = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_to_a_mounted_secret_is_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("mount/..v1")).unwrap();
        fs::write(root.join("mount/..v1/tls.crt"), "one").unwrap();
        symlink("..v1", root.join("mount/..data")).unwrap();
        symlink("..data/tls.crt", root.join("mount/tls.crt")).unwrap();
        symlink("mount", root.join("secrets")).unwrap();

        let places = WatchSet::of(&[root.join("secrets/tls.crt")]);
        for decisive in ["secrets", "mount/tls.crt", "mount/..data", "mount/..v1", "mount/..v1/tls.crt"] {
            assert!(places.matter(&root.join(decisive)), "{decisive}: {places:?}");
        }
        for idle in ["other", "mount/tls.key", "mount/..v1/tls.key"] {
            assert!(!places.matter(&root.join(idle)), "{idle}: {places:?}");
        }
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let places = WatchSet::of(&[root.join("a")]);
        assert!(places.matter(&root.join("a")) && places.matter(&root.join("b")));
    }

    #[test]
    fn of_a_missing_path_the_first_missing_name_is_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let places = WatchSet::of(&[root.join("not/yet/there.pem")]);
        assert!(places.matter(&root.join("not")), "{places:?}");
    }
}
