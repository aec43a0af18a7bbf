//! A run that recorded nothing leaves nothing: what it made on its way is taken away again, and
//! only that.

use std::path::PathBuf;

use crate::energy::Bucket;
use crate::files;
use crate::project::Project;

/// What was not there before the run.
#[derive(Debug)]
pub(super) struct Absent {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// What the run has made so far. Dropped, it is removed; kept, it stays.
#[derive(Debug)]
pub(super) struct Traces {
    made: Absent,
    bucket: Option<NewBucket>,
}

/// A bucket, with the mark that it was opened unless that is older than this run.
#[derive(Debug)]
struct NewBucket {
    folder: PathBuf,
    mark: Option<PathBuf>,
}

impl Absent {
    /// Looks before the first file is written.
    pub fn look(project: &Project) -> Self {
        let (state, keys) = (project.state(), project.keys());
        let receipts = keys.parent().map(PathBuf::from);
        let folders = [project.baselines(), state, keys]
            .into_iter()
            .chain(receipts);
        Self {
            files: [project.lock()]
                .into_iter()
                .filter(|file| !file.exists())
                .collect(),
            folders: folders.filter(|folder| !folder.exists()).collect(),
        }
    }

    /// Once the project is locked, what appears is this run's.
    pub fn into_traces(self) -> Traces {
        Traces {
            made: self,
            bucket: None,
        }
    }
}

impl Traces {
    /// A file that this run has made.
    pub fn made(&mut self, file: PathBuf) {
        self.made.files.push(file);
    }

    /// A bucket that this run is about to make.
    pub fn opens(&mut self, project: &Project) {
        self.bucket = Some(NewBucket {
            folder: project.bucket(),
            mark: Some(project.bucket_mark()).filter(|mark| !mark.exists()),
        });
    }

    /// Something is recorded: from now on everything stays.
    pub fn keep(&mut self) {
        self.made.files.clear();
        self.made.folders.clear();
        self.bucket = None;
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // What cannot be removed is no more than clutter, and the error that ended the run is
        // the one to show.
        if let Some(bucket) = &self.bucket {
            let _ = Bucket::discard_unused(&bucket.folder);
            // One that somebody has used stays, and so does its mark.
            if let Some(mark) = bucket
                .mark
                .as_ref()
                .filter(|_| !Bucket::is_in(&bucket.folder))
            {
                let _ = files::remove(mark);
            }
        }
        for file in &self.made.files {
            let _ = files::remove(file);
        }
        for folder in &self.made.folders {
            files::remove_if_empty(folder);
        }
    }
}
