//! The cache and local folders; `tests/it/hub.rs` has the hub.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::digest::Digest;
use crate::model::{Folder, MODEL_FILE, SUMS_FILE};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert-tiny");

fn cache(folder: &Path) -> Cache {
    Cache {
        folder: folder.join("models"),
        hub: Hub {
            endpoint: "http://127.0.0.1:9".into(),
            folder: folder.join("hub"),
            token: None,
            offline: false,
        },
        project: PathBuf::from("/"),
    }
}

fn entry(sources: Vec<Source>, sha256: Digest) -> ModelEntry {
    ModelEntry {
        name: "tiny".into(),
        sources,
        sha256,
        files: BTreeMap::new(),
    }
}

#[test]
fn sources_are_tried_in_order_and_the_cache_serves_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    let sources = ["nowhere/model", "hf:nobody/nothing", TINY].map(|s| s.parse().unwrap());
    let entry = entry(sources.to_vec(), sha256);
    let mut events = Vec::new();
    let path = cache(folder.path())
        .fetch(&entry, &mut |event| events.push(event))
        .unwrap();
    assert_eq!(Digest::of_file(&path.join(MODEL_FILE)).unwrap(), sha256);
    let gave_way = events
        .iter()
        .filter(|e| matches!(e, FetchEvent::GaveWay { .. }))
        .count();
    assert_eq!(gave_way, 2, "{events:?}");
    let again = cache(folder.path())
        .fetch(&entry, &mut |_| panic!("it is cached"))
        .unwrap();
    assert_eq!(again, path);
}

#[test]
fn what_is_damaged_is_fetched_anew_and_stays_where_no_source_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    let cache = cache(folder.path());
    let whole = entry(vec![TINY.parse().unwrap()], sha256);
    let path = cache.fetch(&whole, &mut |_| {}).unwrap();
    let weights = fs::read(path.join(MODEL_FILE)).unwrap();
    let mut bent = weights.clone();
    bent[weights.len() / 2..].fill(0);
    for damaged in [&weights[..weights.len() / 2], &bent, b""] {
        fs::write(path.join(MODEL_FILE), damaged).unwrap();
        assert!(matches!(cache.kept(&whole), Kept::Damaged(_)));
        let absent = entry(vec!["nowhere/model".parse().unwrap()], sha256);
        assert!(cache.fetch(&absent, &mut |_| {}).is_err());
        let mut said = Vec::new();
        cache.fetch(&whole, &mut |event| said.push(event)).unwrap();
        assert!(matches!(said[0], FetchEvent::Damaged { .. }), "{said:?}");
        assert_eq!(fs::read(path.join(MODEL_FILE)).unwrap(), weights);
    }
    let left = fs::read_dir(folder.path().join("models")).unwrap();
    assert_eq!(left.count(), 1);
}

#[test]
fn a_small_file_that_was_altered_or_cut_is_fetched_anew() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    let cache = cache(folder.path());
    let entry = entry(vec![TINY.parse().unwrap()], sha256);
    let path = cache.fetch(&entry, &mut |_| {}).unwrap();
    let mend = |what: &str| {
        let mut said = Vec::new();
        cache.fetch(&entry, &mut |event| said.push(event)).unwrap();
        let is_named =
            matches!(&said[..], [FetchEvent::Damaged { cause, .. }, ..] if cause.contains(what));
        assert!(is_named, "{said:?}");
        assert_eq!(cache.kept(&entry), Kept::Whole);
    };
    for name in ["config.json", "tokenizer.json"] {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        let altered = [&whole[..], b" "].concat();
        for damaged in [&altered[..], &whole[..whole.len() / 2], b""] {
            fs::write(&file, damaged).unwrap();
            mend(name);
            assert_eq!(fs::read(&file).unwrap(), whole);
        }
    }
    // One more file would change the answers as well, and so would another list.
    fs::write(path.join("vocab.txt"), "one more").unwrap();
    mend("vocab.txt");
    fs::write(path.join("config.json"), "{}").unwrap();
    let relisted = Manifest::of(&path, decisive()).unwrap().to_string();
    fs::write(path.join(SUMS_FILE), relisted).unwrap();
    assert_eq!(
        cache.kept(&entry),
        Kept::Whole,
        "a list is believed where nothing is pinned"
    );
    fs::remove_file(path.join(SUMS_FILE)).unwrap();
    mend(SUMS_FILE);
    // Weights that are to be read again keep the notes of the others.
    cache.distrust(&entry);
    fs::write(path.join("config.json"), "{}").unwrap();
    mend("config.json");
}

#[test]
fn many_at_once_fetch_it_once_and_sweep_what_a_killed_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    let cache = cache(folder.path());
    let entry = entry(vec![TINY.parse().unwrap()], sha256);
    let models = folder.path().join("models");
    let left = |name: String| fs::create_dir_all(models.join(name)).unwrap();
    let name = entry.folder_name(Path::new("/"));
    left(format!(".staging-{name}-aB3xYz"));
    left(format!(".staging-{name}-not-ours"));
    left(format!(".staging-{}-aB3xYz", Digest::of(b"other").hex()));
    let tried = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let path = cache.fetch(&entry, &mut |event| {
                    if matches!(event, FetchEvent::Trying(_)) {
                        tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
                assert!(path.unwrap().join(MODEL_FILE).is_file());
            });
        }
    });
    assert_eq!(tried.into_inner(), 1);
    // The model, and what is not this model's.
    assert_eq!(fs::read_dir(models).unwrap().count(), 3);
}

#[test]
fn offline_nothing_is_asked_but_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    let mut cache = cache(folder.path());
    cache.hub.offline = true;
    let far = ["hf:nobody/nothing", "pypi:nothing==1.0/model"].map(|s| s.parse().unwrap());
    let mut entry = entry(far.to_vec(), sha256);
    let error = cache.fetch(&entry, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error.matches("offline").count(), 2, "{error}");
    entry.sources.push(TINY.parse().unwrap());
    cache.fetch(&entry, &mut |_| {}).unwrap();
}

#[test]
fn another_digest_is_refused_by_name_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let entry = entry(vec![TINY.parse().unwrap()], Digest::of(b"other"));
    let error = cache(folder.path())
        .fetch(&entry, &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.safetensors has the digest"),
        "{error}"
    );
    let left = fs::read_dir(folder.path().join("models")).unwrap().count();
    assert_eq!(left, 0);
}

/// A project with MiniLM's part: a folder with the tiny model, altered or not.
fn project(folder: &Path, name: &str, alter: &[(&str, &str)]) -> PathBuf {
    let project = folder.join(name);
    fs::create_dir_all(project.join("x")).unwrap();
    for file in ["config.json", "tokenizer.json", MODEL_FILE] {
        fs::copy(Path::new(TINY).join(file), project.join("x").join(file)).unwrap();
    }
    for (file, text) in alter {
        fs::write(project.join("x").join(file), text).unwrap();
    }
    project
}

#[test]
fn what_one_project_declares_never_serves_another() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read_to_string(Path::new(TINY).join("tokenizer.json")).unwrap();
    let swapped = whole.replace("\"good\"", "\"g00d\"");
    assert_ne!(swapped, whole);
    let stranger = project(folder.path(), "stranger", &[("tokenizer.json", &swapped)]);
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    let from = |project: &Path| Cache {
        project: project.to_owned(),
        ..cache(folder.path())
    };
    let plain = entry(vec!["x".parse().unwrap()], sha256);
    let poisoned = from(&stranger).fetch(&plain, &mut |_| {}).unwrap();
    let read = |folder: &Path| fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    assert_eq!(read(&poisoned), swapped);
    // The same weights, declared elsewhere, without pins and with them.
    let honest = from(&project(folder.path(), "honest", &[]));
    let mut pinned = plain.clone();
    let digest = Digest::of(whole.as_bytes());
    pinned
        .files
        .insert("tokenizer.json".parse().unwrap(), digest);
    for entry in [&plain, &pinned] {
        assert_eq!(honest.kept(entry), Kept::Absent);
        let fetched = honest.fetch(entry, &mut |_| {}).unwrap();
        assert_eq!(read(&fetched), whole);
        // Nor does it serve once it is there, in the place of the right one.
        fs::write(fetched.join("tokenizer.json"), &swapped).unwrap();
        let relisted = Manifest::of(&fetched, decisive()).unwrap().to_string();
        fs::write(fetched.join(SUMS_FILE), relisted).unwrap();
        let is_pinned = !entry.files.is_empty();
        assert_eq!(matches!(honest.kept(entry), Kept::Damaged(_)), is_pinned);
    }
    // The stranger's own, under the pins of others, is refused by name.
    let error = from(&stranger).fetch(&pinned, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json has the digest"));
}

#[test]
fn a_cached_model_is_found_by_the_name_of_its_list() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    let cache = cache(folder.path());
    let entry = entry(vec![TINY.parse().unwrap()], sha256);
    assert_eq!(cache.name(&entry), None);
    let path = cache.fetch(&entry, &mut |_| {}).unwrap();
    let name = cache.name(&entry).unwrap();
    assert_eq!(Folder::load(&path).unwrap().name, name);
    assert_eq!(cache.find(&name), Some(path.clone()));
    assert_eq!(cache.find(&sha256), None);
    assert_eq!(cache.with_weights(&sha256), Some(path));
}

#[cfg(unix)]
#[test]
fn a_source_with_a_file_that_never_ends_gives_way() {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
    for name in ["README.md", "vocab.txt", "config.json"] {
        let project = project(folder.path(), name, &[]);
        let _ = fs::remove_file(project.join("x").join(name));
        std::os::unix::fs::symlink("/dev/zero", project.join("x").join(name)).unwrap();
        let cache = Cache {
            project,
            ..cache(folder.path())
        };
        let error = cache.fetch(&entry(vec!["x".parse().unwrap()], sha256), &mut |_| {});
        let error = error.unwrap_err().to_string();
        let told = format!("{name}: it is not a regular file");
        assert!(error.contains(&told), "{error}");
    }
}
