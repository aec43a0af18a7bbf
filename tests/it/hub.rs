//! The hub source against a server on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use cryoflux::digest::Digest;
use cryoflux::model::fetch::{Cache, FetchEvent, Hub, ModelEntry};

use crate::lab::fixtures;

/// Answers the two requests that the hub client makes per file, as the hub does.
fn answer(mut stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut range = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = Some(value.trim().to_owned());
        }
    }
    let path = request.split_whitespace().nth(1)?;
    let name = path.strip_prefix("/tiny/bert/resolve/main/")?;
    let Ok(bytes) = fs::read(fixtures().join("bert-tiny").join(name)) else {
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .ok()?;
        return None;
    };
    let total = bytes.len();
    let (first, last) = match range.as_deref().and_then(|range| range.split_once('-')) {
        Some((first, last)) => (
            first.parse().ok()?,
            last.parse().unwrap_or(total - 1).min(total - 1),
        ),
        None => (0, total - 1),
    };
    let body = &bytes[first..=last];
    let etag = Digest::of(&bytes).hex();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{total}\r\n\
         ETag: \"{etag}\"\r\nX-Repo-Commit: 0123456789abcdef0123456789abcdef01234567\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}

fn cache(folder: &std::path::Path, endpoint: String, offline: bool) -> Cache {
    Cache {
        folder: folder.join("models"),
        hub: Hub {
            endpoint,
            folder: folder.join("hub"),
            token: None,
            offline,
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

#[test]
fn a_model_comes_from_the_hub_and_then_from_its_cache() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten().take(60) {
            thread::spawn(move || answer(stream));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let entry = entry(&["hf:tiny/bert@main"]);
    let mut received = 0;
    let path = cache(folder.path(), endpoint.clone(), false)
        .fetch(&entry, &mut |event| {
            if let FetchEvent::Received(bytes) = event {
                received += bytes;
            }
        })
        .unwrap();
    assert!(path.join("model.safetensors").is_file());
    assert!(received > 200_000, "progress counts the bytes: {received}");
    // Offline, the hub's own cache still has it.
    fs::remove_dir_all(folder.path().join("models")).unwrap();
    cache(folder.path(), endpoint, true)
        .fetch(&entry, &mut |_| {})
        .unwrap();
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
    cache(folder.path(), endpoint, false)
        .fetch(&entry, &mut |event| said.push(event))
        .unwrap();
    assert!(started.elapsed().as_secs() < 15);
    assert!(
        said.iter().any(|event| matches!(event, FetchEvent::GaveWay { cause, .. } if cause.contains("did not answer within 6 s"))),
        "{said:?}"
    );
    drop(listener);
}
