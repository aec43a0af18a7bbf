//! The hub source against servers on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use cryoflux::digest::Digest;
use cryoflux::model::fetch::{Cache, FetchEvent, Hub, ModelEntry};

use crate::lab::fixtures;

const ABSENT: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A server that answers each request as it is told to, and remembers what it heard.
struct Server {
    address: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str, &mut TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&heard), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                thread::spawn(move || {
                    let head = read_head(&stream)?;
                    kept.lock().unwrap().push(head.to_ascii_lowercase());
                    answer(head.split_whitespace().nth(1)?, &mut stream)
                });
            }
        });
        Self { address, heard }
    }

    /// One that has the tiny model, with more to say of each file.
    fn tiny(headers: &'static str) -> Self {
        Self::start(move |path, stream| {
            let name = path.strip_prefix("/tiny/bert/resolve/main/")?;
            give(name, headers, stream)
        })
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn read_head(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// A file of the tiny model, or 404.
fn give(name: &str, headers: &str, stream: &mut TcpStream) -> Option<()> {
    let Ok(bytes) = fs::read(fixtures().join("bert-tiny").join(name)) else {
        return stream.write_all(ABSENT.as_bytes()).ok();
    };
    let length = bytes.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&bytes).ok()
}

fn lead(to: &str, stream: &mut TcpStream) -> Option<()> {
    let head = format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()
}

fn cache(folder: &Path, endpoint: &str) -> Cache {
    Cache {
        folder: folder.join("models"),
        hub: Hub {
            endpoint: endpoint.to_owned(),
            folder: folder.join("huggingface/hub"),
            token: None,
            offline: false,
        },
        project: PathBuf::from("/"),
    }
}

fn entry(sources: &[&str]) -> ModelEntry {
    let model = fixtures().join("bert-tiny/model.safetensors");
    ModelEntry {
        name: "tiny".into(),
        sources: sources
            .iter()
            .map(|source| source.parse().unwrap())
            .collect(),
        sha256: Digest::of_file(&model).unwrap(),
        files: BTreeMap::new(),
    }
}

/// What a hub that cannot be used says.
fn refused(server: &Server) -> String {
    let folder = tempfile::tempdir().unwrap();
    let fetched =
        cache(folder.path(), &server.address).fetch(&entry(&["hf:tiny/bert"]), &mut |_| {});
    assert_eq!(
        fs::read_dir(folder.path().join("models")).unwrap().count(),
        0
    );
    fetched.unwrap_err().to_string()
}

/// The cache of the hub's tools with the tiny model, but not with these files.
#[cfg(unix)]
fn fill_tools_cache(folder: &Path, commit: &str, without: &[&str]) {
    let repository = folder.join("huggingface/hub/models--tiny--bert");
    for part in ["refs", "blobs", &format!("snapshots/{commit}")] {
        fs::create_dir_all(repository.join(part)).unwrap();
    }
    fs::write(repository.join("refs/main"), commit).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        if !without.contains(&name) {
            fs::copy(
                fixtures().join("bert-tiny").join(name),
                repository.join("blobs").join(name),
            )
            .unwrap();
            let link = repository.join("snapshots").join(commit).join(name);
            std::os::unix::fs::symlink(format!("../../blobs/{name}"), link).unwrap();
        }
    }
}

#[test]
fn a_model_comes_from_the_hub_with_the_files_that_it_has() {
    let server = Server::tiny("");
    let folder = tempfile::tempdir().unwrap();
    let mut received = 0;
    let path = cache(folder.path(), &server.address)
        .fetch(&entry(&["hf:tiny/bert@main"]), &mut |event| {
            if let FetchEvent::Received(bytes) = event {
                received += bytes;
            }
        })
        .unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let theirs = fs::read(fixtures().join("bert-tiny").join(name)).unwrap();
        assert_eq!(fs::read(path.join(name)).unwrap(), theirs);
    }
    assert!(!path.join("vocab.txt").exists());
    assert!(received > 200_000, "progress counts the bytes: {received}");
    // The cache of its own tools is only read.
    assert!(!folder.path().join("huggingface").exists());
}

#[cfg(unix)]
#[test]
fn the_cache_of_the_hubs_tools_is_read_and_what_it_lacks_comes_from_its_commit() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let folder = tempfile::tempdir().unwrap();
    fill_tools_cache(folder.path(), COMMIT, &[]);
    let mut offline = cache(folder.path(), "http://127.0.0.1:9");
    offline.hub.offline = true;
    let entry = entry(&["hf:tiny/bert"]);
    offline.fetch(&entry, &mut |_| {}).unwrap();
    // A file that it lacks.
    let folder = tempfile::tempdir().unwrap();
    fill_tools_cache(folder.path(), COMMIT, &["tokenizer.json"]);
    let absent = folder
        .path()
        .join("huggingface/hub/models--tiny--bert/.no_exist")
        .join(COMMIT);
    fs::create_dir_all(&absent).unwrap();
    fs::write(absent.join("vocab.txt"), "").unwrap();
    let server = Server::start(|path, stream| {
        let name = path
            .strip_prefix("/tiny/bert/resolve/")?
            .strip_prefix(COMMIT)?;
        give(&name[1..], "", stream)
    });
    cache(folder.path(), &server.address)
        .fetch(&entry, &mut |_| {})
        .unwrap();
    let heard = server.heard();
    assert!(
        heard.iter().any(|head| head.contains("/tokenizer.json ")),
        "{heard:?}"
    );
    for known in ["/config.json ", "/model.safetensors ", "/vocab.txt "] {
        assert!(!heard.iter().any(|head| head.contains(known)), "{heard:?}");
    }
    let mut offline = cache(folder.path(), &server.address);
    offline.hub.offline = true;
    fs::remove_dir_all(&offline.folder).unwrap();
    let error = offline.fetch(&entry, &mut |_| {}).unwrap_err().to_string();
    assert!(
        error.contains("offline (HF_HUB_OFFLINE): not fetched, and tokenizer.json is not"),
        "{error}"
    );
}

#[test]
fn a_hub_that_does_not_answer_gives_way_within_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let local = fixtures().join("bert-tiny").display().to_string();
    let entry = entry(&["hf:tiny/bert@main", &local]);
    let started = Instant::now();
    let mut said = Vec::new();
    cache(folder.path(), &endpoint)
        .fetch(&entry, &mut |event| said.push(event))
        .unwrap();
    assert!(started.elapsed().as_secs() < 15);
    assert!(
        said.iter().any(|event| matches!(event, FetchEvent::GaveWay { cause, .. } if cause.contains("did not answer within 6 s"))),
        "{said:?}"
    );
    drop(listener);
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_it_leads_to() {
    const BEARER: &str = "authorization: bearer hf_secret";
    let elsewhere = Server::start(|path, stream| match path.strip_prefix("/blob/") {
        // And from there back to the hub.
        Some("config.json") => lead(path.strip_prefix("/blob")?, stream),
        Some(name) => give(name, "", stream),
        None => give(&path[1..], "", stream),
    });
    let there = elsewhere.address.clone();
    let hub =
        Server::start(
            move |path, stream| match path.strip_prefix("/tiny/bert/resolve/main/") {
                Some("tokenizer.json") => lead("/here/tokenizer.json", stream),
                Some(name) => lead(&format!("{there}/blob/{name}"), stream),
                None => give(path.strip_prefix("/here/")?, "", stream),
            },
        );
    for token_file in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = cache(folder.path(), &hub.address);
        if token_file {
            fs::create_dir_all(folder.path().join("huggingface")).unwrap();
            fs::write(folder.path().join("huggingface/token"), "hf_secret\n").unwrap();
        } else {
            cache.hub.token = Some("hf_secret".into());
        }
        let entry = entry(&["hf:tiny/bert"]);
        // Where an optional file leads elsewhere and is not there, that is no answer of the hub.
        let error = cache.fetch(&entry, &mut |_| {}).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{} answers 404", elsewhere.address)),
            "{error}"
        );
        assert!(!error.contains("hf_secret"), "{error}");
    }
    let (to_hub, to_others) = (hub.heard(), elsewhere.heard());
    assert!(
        to_hub
            .iter()
            .any(|head| head.contains("/here/tokenizer.json "))
    );
    assert!(
        to_hub.iter().all(|head| head.contains(BEARER)),
        "{to_hub:?}"
    );
    assert!(
        to_others
            .iter()
            .any(|head| head.contains("/blob/model.safetensors "))
    );
    assert!(
        to_others.iter().all(|head| !head.contains("authorization")),
        "{to_others:?}"
    );
}

#[test]
fn who_led_elsewhere_gets_no_token_on_the_way_back() {
    let hub = Arc::new(Mutex::new(String::new()));
    let back = Arc::clone(&hub);
    let elsewhere =
        Server::start(move |_, stream| lead(&format!("{}/back", back.lock().unwrap()), stream));
    let there = elsewhere.address;
    let server = Server::start(move |path, stream| match path {
        "/back" => give("config.json", "", stream),
        _ => lead(&format!("{there}/"), stream),
    });
    *hub.lock().unwrap() = server.address.clone();
    let folder = tempfile::tempdir().unwrap();
    let mut cache = cache(folder.path(), &server.address);
    cache.hub.token = Some("hf_secret".into());
    let _ = cache.fetch(&entry(&["hf:tiny/bert"]), &mut |_| {});
    let heard = server.heard();
    let came_back = heard.iter().find(|head| head.starts_with("get /back "));
    assert!(!came_back.unwrap().contains("authorization"), "{heard:?}");
}

#[test]
fn nothing_that_a_hub_says_becomes_a_path() {
    let server = Server::tiny(
        "ETag: \"/tmp/cryoflux-etag-trap\"\r\nX-Repo-Commit: ../../x\r\n\
         X-Linked-Etag: \"../../../y\"\r\nContent-Disposition: attachment; filename=\"../z\"\r\n",
    );
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path(), &server.address);
    let entry = entry(&["hf:tiny/bert"]);
    let path = cache.fetch(&entry, &mut |_| {}).unwrap();
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(folder.path()), ["models"]);
    assert_eq!(
        names(&cache.folder),
        [path.file_name().unwrap().to_string_lossy()]
    );
    assert_eq!(
        names(&path),
        [
            ".checked",
            "SHA256SUMS",
            "config.json",
            "model.safetensors",
            "tokenizer.json"
        ]
    );
    assert!(!Path::new("/tmp/cryoflux-etag-trap").exists());
}

#[test]
fn a_file_that_is_too_long_or_too_short_is_not_kept() {
    let answering = |head: &'static str, body: &'static [u8], times: usize| {
        Server::start(move |path, stream| {
            let name = path.strip_prefix("/tiny/bert/resolve/main/")?;
            if name != "config.json" {
                return give(name, "", stream);
            }
            stream.write_all(head.as_bytes()).ok()?;
            // Who hangs up in the meantime has had enough.
            (0..times).try_for_each(|_| stream.write_all(body)).ok()
        })
    };
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let large = answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        &ZEROS,
        1,
    );
    let error = refused(&large);
    assert!(
        error.contains("config.json has 99999999999 bytes; the limit is 16777216"),
        "{error}"
    );
    let endless = answering(
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        &ZEROS,
        usize::MAX,
    );
    let error = refused(&endless);
    assert!(
        error.contains("config.json is longer than the limit of 16777216 bytes"),
        "{error}"
    );
    let short = answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
        b"{}",
        1,
    );
    let error = refused(&short);
    assert!(
        error.contains("config.json broke off after 2 bytes"),
        "{error}"
    );
    // What comes after the announced end is no part of the file.
    let folder = tempfile::tempdir().unwrap();
    let long = answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        b"{}{}",
        1,
    );
    let path = cache(folder.path(), &long.address).fetch(&entry(&["hf:tiny/bert"]), &mut |_| {});
    assert_eq!(fs::read(path.unwrap().join("config.json")).unwrap(), b"{}");
}

#[test]
fn a_hub_that_leads_in_circles_or_refuses_is_told_apart_from_one_without_the_file() {
    let circle = Server::start(lead);
    let error = refused(&circle);
    assert!(error.contains("leads on more than 5 times"), "{error}");
    assert_eq!(circle.heard().len(), 6);
    let nowhere = Server::start(|_, stream| lead("file:///etc/passwd", stream));
    let error = refused(&nowhere);
    assert!(error.contains("leads nowhere"), "{error}");
    let locked = Server::start(|_, stream| {
        let head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).ok()
    });
    let error = refused(&locked);
    assert!(
        error.contains("answers 401") && error.contains("HF_TOKEN"),
        "{error}"
    );
    let empty = Server::start(|_, stream| stream.write_all(ABSENT.as_bytes()).ok());
    let error = refused(&empty);
    assert!(
        error.contains("tiny/bert has no config.json at main"),
        "{error}"
    );
}
