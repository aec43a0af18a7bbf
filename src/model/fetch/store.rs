//! Which files are taken from a source, and how: in pieces, and none without an end.

use std::io::{ErrorKind, Read};

use super::{FetchEvent, SourceError};
use crate::files::Staging;
use crate::model::manifest::decisive;
use crate::model::{MODEL_FILE, REQUIRED};

/// Files that decide nothing and are taken along for people.
const FOR_PEOPLE: [&str; 2] = ["README.md", "LICENSE"];
/// No weights that this program runs are larger.
const WEIGHT_BYTES: u64 = 8 << 30;
/// Nor is a tokenizer with all its words.
const TOKENIZER_BYTES: u64 = 256 << 20;
/// Nor any other file.
const SMALL_BYTES: u64 = 16 << 20;
/// Bytes taken at a time.
const PIECE: usize = 1 << 16;

/// All files that are asked for.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    decisive().chain(FOR_PEOPLE)
}

/// Whether a model is none without it.
pub(super) fn is_required(name: &str) -> bool {
    REQUIRED.contains(&name)
}

/// Whether a model answers the same without it.
pub(super) fn is_for_people(name: &str) -> bool {
    FOR_PEOPLE.contains(&name)
}

fn most(name: &str) -> u64 {
    match name {
        MODEL_FILE => WEIGHT_BYTES,
        "tokenizer.json" => TOKENIZER_BYTES,
        _ => SMALL_BYTES,
    }
}

/// Takes one file, of which a source may have said how long it is.
pub(super) fn store(
    name: &str,
    reader: &mut dyn Read,
    announced: Option<u64>,
    staging: &Staging,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<(), SourceError> {
    let refused = |what: String| Err(SourceError::Unavailable(format!("{name} {what}")));
    let most = most(name);
    if let Some(bytes) = announced.filter(|bytes| *bytes > most) {
        return refused(format!("has {bytes} bytes; the limit is {most}"));
    }
    events(FetchEvent::File {
        name: name.to_owned(),
        bytes: announced.unwrap_or_default(),
    });
    let mut file = staging.create(name)?;
    let mut piece = vec![0; PIECE];
    let mut taken = 0;
    loop {
        let read = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return refused(format!("broke off after {taken} bytes: {error}")),
        };
        taken += read as u64;
        if taken > announced.unwrap_or(most) {
            return refused(match announced {
                Some(bytes) => format!("is longer than the {bytes} bytes that were announced"),
                None => format!("is longer than the limit of {most} bytes"),
            });
        }
        file.write(&piece[..read])?;
        events(FetchEvent::Received(read as u64));
    }
    match announced {
        Some(bytes) if taken < bytes => refused(format!("ended after {taken} of {bytes} bytes")),
        _ => Ok(file.finish()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, bytes: &mut dyn Read, announced: Option<u64>) -> Result<u64, String> {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::new(&folder.path().join("model")).unwrap();
        let stored = store(name, bytes, announced, &staging, &mut |_| {});
        let left = std::fs::metadata(staging.path().join(name)).map(|meta| meta.len());
        assert_eq!(stored.is_ok(), left.is_ok());
        stored
            .map(|()| left.unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_ends_where_it_was_said_to_and_below_its_limit() {
        assert_eq!(stored("vocab.txt", &mut &b"abc"[..], Some(3)), Ok(3));
        assert_eq!(stored("vocab.txt", &mut &b"abc"[..], None), Ok(3));
        let error =
            |bytes: &mut dyn Read, announced| stored("vocab.txt", bytes, announced).unwrap_err();
        let longer = error(&mut &b"abcd"[..], Some(3));
        assert_eq!(
            longer,
            "vocab.txt is longer than the 3 bytes that were announced"
        );
        let shorter = error(&mut &b"ab"[..], Some(3));
        assert_eq!(shorter, "vocab.txt ended after 2 of 3 bytes");
        let large = error(&mut std::io::repeat(0), Some(SMALL_BYTES + 1));
        assert_eq!(large, "vocab.txt has 16777217 bytes; the limit is 16777216");
        let endless = error(&mut std::io::repeat(0), None);
        assert_eq!(
            endless,
            "vocab.txt is longer than the limit of 16777216 bytes"
        );
    }
}
