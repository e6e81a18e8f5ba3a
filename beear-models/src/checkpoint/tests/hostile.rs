//! Tests of malicious folders that reach other files: through links, names in the index, bases of
//! adapters, and endless files.

#![cfg(unix)]

use std::os::unix::fs::symlink;

use beear_input::Refusal;

use super::*;
use crate::checkpoint::{base_of_adapters, save_adapters};
use crate::lora::tests::adapted;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn copy(path: &Path, out: &Path) {
    save(&load(path).unwrap(), &Checkpoint::open(path).unwrap(), out, SEED).unwrap();
}

fn mkfifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_link_out_of_the_folder_publishes_nothing() {
    let (dir, path, _) = saved(|_| ());
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::create_dir(dir.path().join("private")).unwrap();
    symlink(dir.path().join("secret"), path.join("README.md")).unwrap();
    symlink("../secret", path.join("relative.txt")).unwrap();
    symlink("README.md", path.join("twice.txt")).unwrap();
    symlink("nowhere", path.join("dangling.txt")).unwrap();
    symlink("../private", path.join("folder")).unwrap();
    symlink("/dev/zero", path.join("zero")).unwrap();
    mkfifo(&path.join("pipe"));
    symlink("config.json", path.join("inside.json")).unwrap();
    let out = dir.path().join("out");
    copy(&path, &out);
    assert_eq!(names(&out), ["config.json", "inside.json", "model.safetensors", "tokenizer.json"]);
    assert!(!out.join("inside.json").is_symlink(), "links are copied as files");
    let left_out = Checkpoint::open(&path).unwrap().left_out().unwrap();
    let left_out: Vec<String> = left_out.iter().map(ToString::to_string).collect();
    let secret = dir.path().canonicalize().unwrap().join("secret");
    let leaves = |name: &str| format!("`{name}`: the link leaves the folder: {}", secret.display());
    assert!(left_out.contains(&leaves("README.md")), "{left_out:?}");
    assert!(left_out.contains(&leaves("twice.txt")), "{left_out:?}");
    assert!(left_out.contains(&"`pipe`: a pipe instead of a regular file".to_owned()));
    assert_eq!(left_out.len(), 6, "{left_out:?}");
}

#[test]
fn a_snapshot_of_the_hub_cache_is_read_and_copied() {
    let (dir, path, model) = saved(|_| ());
    let repository = dir.path().join("models--org--name");
    let snapshot = repository.join("snapshots/0123abc");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("blobs")).unwrap();
    for (k, name) in names(&path).into_iter().enumerate() {
        fs::copy(path.join(&name), repository.join(format!("blobs/{k}"))).unwrap();
        symlink(format!("../../blobs/{k}"), snapshot.join(&name)).unwrap();
    }
    let out = dir.path().join("out");
    copy(&snapshot, &out);
    assert_eq!(names(&out), names(&path));
    assert_eq!(weights(&load(&out).unwrap()), weights(&model));
    assert!(!out.join("config.json").is_symlink());
    assert_eq!(Checkpoint::open(&snapshot).unwrap().left_out().unwrap(), []);
}

#[test]
fn weights_may_be_links_to_a_shared_disk_and_the_config_may_not() {
    let (dir, path, model) = saved(|_| ());
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let move_out = |name: &str| {
        fs::rename(path.join(name), shared.join(name)).unwrap();
        symlink(shared.join(name), path.join(name)).unwrap();
    };
    move_out("model.safetensors");
    assert_eq!(weights(&load(&path).unwrap()), weights(&model));
    let out = dir.path().join("out");
    copy(&path, &out);
    assert!(!out.join("model.safetensors").is_symlink(), "weights are written, not linked");
    move_out("config.json");
    let error = load(&path).unwrap_err();
    assert!(error.hint().unwrap().contains("a copy in the place of the link"), "{error}");
    let CheckpointError::Io { path: named, source } = error else { panic!("{error}") };
    assert!(named.ends_with("config.json"), "the file is named");
    assert!(matches!(Refusal::of(&source), Some(Refusal::LeavesFolder { .. })));
}

#[test]
fn weights_that_are_a_pipe_or_a_device_are_refused_at_once() {
    let (_dir, path, _) = saved(|_| ());
    let file = path.join("model.safetensors");
    for make in [mkfifo as fn(&Path), |file: &Path| symlink("/dev/zero", file).unwrap()] {
        fs::remove_file(&file).unwrap();
        make(&file);
        let error = load(&path).unwrap_err();
        let CheckpointError::Io { source, .. } = &error else { panic!("{error}") };
        assert!(matches!(Refusal::of(source), Some(Refusal::NotRegular { .. })), "{error}");
    }
    fs::remove_file(path.join("config.json")).unwrap();
    mkfifo(&path.join("config.json"));
    assert!(matches!(load(&path), Err(CheckpointError::Io { .. })));
}

#[test]
fn an_index_names_no_file_outside_even_through_a_folder_that_is_a_link() {
    let (dir, path, _) = saved(|_| ());
    fs::create_dir(dir.path().join("private")).unwrap();
    fs::rename(path.join("model.safetensors"), dir.path().join("private/w.safetensors")).unwrap();
    symlink("../private", path.join("sub")).unwrap();
    for name in ["../private/w.safetensors", "sub/w.safetensors", "/etc/passwd", ".."] {
        let text = json!({"weight_map": {"model.norm.weight": name}}).to_string();
        fs::write(path.join("model.safetensors.index.json"), text).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::EscapingShard { .. }), "{name}: {error}");
    }
}

#[test]
fn of_a_base_that_adapters_name_only_what_a_model_needs_is_copied() {
    let (dir, base, _) = saved(|_| ());
    for name in ["notes.txt", ".env", "LICENSE", "chat_template.jinja"] {
        fs::write(base.join(name), name).unwrap();
    }
    let adapters = dir.path().join("adapters");
    let named = BaseName { name: base.to_str().unwrap().to_owned(), revision: None };
    save_adapters(&adapted(0..2), &named, &adapters).unwrap();
    assert_eq!(base_of_adapters(&adapters), Some(base.clone()));
    let out = dir.path().join("out");
    copy(&adapters, &out);
    let needed =
        ["LICENSE", "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(names(&out), needed);
    let left_out = Checkpoint::open(&adapters).unwrap().left_out().unwrap();
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    // All files of a model that the user names are copied.
    let whole = dir.path().join("whole");
    copy(&base, &whole);
    assert_eq!(names(&whole).len(), needed.len() + 2);
}
