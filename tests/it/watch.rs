//! A change of a watched file is seen however the file is replaced, and only a change is.
//!
//! A wait that should end is bounded far above what it takes and below the poll (30 s): so an event must
//! have been heard.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use egret::control::reload::watch::Watcher;
use tempfile::TempDir;
use tokio::time::timeout;

const BELOW_THE_POLL: Duration = Duration::from_secs(20);
/// Longer than it takes until a change is reported.
const QUIET: Duration = Duration::from_secs(1);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

async fn changed(watcher: &mut Watcher) -> Vec<PathBuf> {
    timeout(BELOW_THE_POLL, watcher.changed()).await.expect("the change is seen")
}

async fn nothing_changed(watcher: &mut Watcher) {
    if let Ok(files) = timeout(QUIET, watcher.changed()).await {
        panic!("nothing has changed, but {files:?} are reported");
    }
}

/// Starts the wait first and changes files in the midst of it, so that the event has to wake it.
async fn changed_by(watcher: &mut Watcher, change: impl FnOnce()) -> Vec<PathBuf> {
    let later = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        change();
    };
    let (files, ()) = tokio::join!(changed(watcher), later);
    files
}

/// As a kubelet does: a new folder, and one rename that makes `..data` point at it.
fn swap(mount: &Path, generation: usize, files: &[(&str, String)]) {
    let version = format!("..version_{generation}");
    fs::create_dir(mount.join(&version)).unwrap();
    for (name, content) in files {
        fs::write(mount.join(&version).join(name), content).unwrap();
    }
    let before = fs::read_link(mount.join("..data")).ok();
    symlink(&version, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(mount.join(before)).unwrap();
    }
}

fn mounted(mount: &Path) -> Vec<PathBuf> {
    swap(mount, 0, &[("tls.crt", "c0".into()), ("tls.key", "k0".into())]);
    let names = ["tls.crt", "tls.key"];
    for name in names {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    names.map(|name| mount.join(name)).to_vec()
}

#[tokio::test]
async fn watch_survives_fifty_symlink_swaps() {
    let (_keep, mount) = folder();
    let files = mounted(&mount);
    let mut watcher = Watcher::new(files.clone()).unwrap();
    for n in 1..=50 {
        let pair = [("tls.crt", format!("c{n}")), ("tls.key", format!("k{n}"))];
        assert_eq!(changed_by(&mut watcher, || swap(&mount, n, &pair)).await, files, "swap {n}");
    }
    nothing_changed(&mut watcher).await;
}

#[tokio::test]
async fn identical_bytes_are_no_change() {
    let (_keep, mount) = folder();
    let files = mounted(&mount);
    let mut watcher = Watcher::new(files.clone()).unwrap();
    swap(&mount, 1, &[("tls.crt", "c0".into()), ("tls.key", "k0".into())]);
    nothing_changed(&mut watcher).await;
    fs::write(mount.join("tls.crt"), "c0").unwrap();
    nothing_changed(&mut watcher).await;
    // And it has not gone deaf by that.
    fs::write(mount.join("tls.crt"), "c1").unwrap();
    assert_eq!(changed(&mut watcher).await, files[..1]);
}

#[tokio::test]
async fn every_way_to_replace_a_file_is_seen() {
    let (_keep, root) = folder();
    let home = root.join("home");
    fs::create_dir(&home).unwrap();
    let file = home.join("a.pem");
    fs::write(&file, "0").unwrap();
    let mut watcher = Watcher::new(vec![file.clone()]).unwrap();

    for round in 0..3 {
        let ways: [(&str, &dyn Fn()); 5] = [
            ("written in place", &|| fs::write(&file, format!("in place {round}")).unwrap()),
            ("renamed over", &|| {
                fs::write(home.join("a.tmp"), format!("renamed {round}")).unwrap();
                fs::rename(home.join("a.tmp"), &file).unwrap();
            }),
            ("deleted and created", &|| {
                fs::remove_file(&file).unwrap();
                fs::write(&file, format!("created {round}")).unwrap();
            }),
            ("its folder replaced by rename", &|| {
                fs::create_dir(root.join("new")).unwrap();
                fs::write(root.join("new/a.pem"), format!("folder {round}")).unwrap();
                fs::rename(&home, root.join(format!("old_{round}"))).unwrap();
                fs::rename(root.join("new"), &home).unwrap();
            }),
            ("its folder deleted and created", &|| {
                fs::remove_dir_all(&home).unwrap();
                fs::create_dir(&home).unwrap();
                fs::write(&file, format!("folder again {round}")).unwrap();
            }),
        ];
        for (way, replace) in ways {
            let seen = changed_by(&mut watcher, replace).await;
            assert_eq!(seen, std::slice::from_ref(&file), "{way}, round {round}");
        }
    }
}

#[tokio::test]
async fn half_written_pair_is_reported_again_when_its_other_half_arrives() {
    let (_keep, root) = folder();
    let (certificate, key) = (root.join("a.crt"), root.join("a.key"));
    fs::write(&certificate, "c0").unwrap();
    fs::write(&key, "k0").unwrap();
    let mut watcher = Watcher::new(vec![certificate.clone(), key.clone()]).unwrap();

    fs::write(&certificate, "c1").unwrap();
    assert_eq!(changed(&mut watcher).await, std::slice::from_ref(&certificate));
    fs::write(&key, "k1").unwrap();
    assert_eq!(changed(&mut watcher).await, std::slice::from_ref(&key));
}

#[tokio::test]
async fn a_pair_written_together_is_one_change() {
    let (_keep, root) = folder();
    let files = vec![root.join("a.crt"), root.join("a.key")];
    files.iter().for_each(|file| fs::write(file, "0").unwrap());
    let mut watcher = Watcher::new(files.clone()).unwrap();

    let both = || files.iter().for_each(|file| fs::write(file, "1").unwrap());
    assert_eq!(changed_by(&mut watcher, both).await, files);
    nothing_changed(&mut watcher).await;
}

#[tokio::test]
async fn a_deleted_file_is_reported_and_its_return_too() {
    let (_keep, root) = folder();
    let file = root.join("a.pem");
    fs::write(&file, "0").unwrap();
    let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(changed(&mut watcher).await, std::slice::from_ref(&file));
    fs::write(&file, "0").unwrap();
    assert_eq!(changed(&mut watcher).await, std::slice::from_ref(&file));
}

#[tokio::test]
async fn a_deletion_that_is_made_good_at_once_is_no_change() {
    let (_keep, root) = folder();
    let file = root.join("a.pem");
    fs::write(&file, "0").unwrap();
    let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
    fs::remove_file(&file).unwrap();
    let again = async {
        // Long enough for two looks that find nothing.
        tokio::time::sleep(Duration::from_millis(500)).await;
        fs::write(&file, "0").unwrap();
    };
    tokio::join!(nothing_changed(&mut watcher), again);
}

#[tokio::test]
async fn a_folder_of_roots_is_watched_file_by_file() {
    let (_keep, root) = folder();
    let (roots, elsewhere) = (root.join("roots"), root.join("elsewhere"));
    fs::create_dir(&roots).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("linked.pem"), "0").unwrap();
    symlink(elsewhere.join("linked.pem"), roots.join("linked.pem")).unwrap();
    let mut watcher = Watcher::new(vec![roots.clone()]).unwrap();

    let add = || fs::write(roots.join("added.pem"), "1").unwrap();
    assert_eq!(changed_by(&mut watcher, add).await, std::slice::from_ref(&roots));
    let write = || fs::write(elsewhere.join("linked.pem"), "2").unwrap();
    assert_eq!(changed_by(&mut watcher, write).await, std::slice::from_ref(&roots));
    let remove = || fs::remove_file(roots.join("added.pem")).unwrap();
    assert_eq!(changed_by(&mut watcher, remove).await, [roots]);
}

#[tokio::test]
async fn other_files_are_watched_after_a_reload_and_no_change_between_is_lost() {
    let (_keep, root) = folder();
    let (kept, new, old) = (root.join("kept"), root.join("new"), root.join("old"));
    for file in [&kept, &new, &old] {
        fs::write(file, "0").unwrap();
    }
    let mut watcher = Watcher::new(vec![kept.clone(), old.clone()]).unwrap();
    fs::write(&kept, "1").unwrap();
    watcher.set_files(vec![kept.clone(), new.clone()]).await.unwrap();
    assert_eq!(changed(&mut watcher).await, [kept]);

    fs::write(&old, "1").unwrap();
    nothing_changed(&mut watcher).await;
    assert_eq!(changed_by(&mut watcher, || fs::write(&new, "1").unwrap()).await, [new]);
}

#[tokio::test]
async fn a_file_that_never_rests_does_not_hide_the_change_of_another() {
    let (_keep, root) = folder();
    let (restless, other) = (root.join("restless"), root.join("other"));
    fs::write(&restless, "0").unwrap();
    fs::write(&other, "0").unwrap();
    let mut watcher = Watcher::new(vec![restless.clone(), other.clone()]).unwrap();
    fs::write(&other, "1").unwrap();
    let scribble = async {
        for n in 1u64.. {
            fs::write(&restless, n.to_string()).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        files = changed(&mut watcher) => assert!(files.contains(&other), "{files:?}"),
        () = scribble => unreachable!("it never rests"),
    }
}
