//! A blob that comes in parts.
//!
//! Separate from single objects, because its bytes are written over some time. What makes it an
//! object is the same.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::{Directory, RENEWED, Staged, Writer, failed, lock, result_of};

/// A blob that is being written.
pub(super) struct Upload {
    directory: Directory,
    path: PathBuf,
    parts: Arc<Mutex<Option<Parts>>>,
    offset: u64,
}

struct Parts {
    staged: Staged,
    file: File,
}

impl Upload {
    pub(super) fn new(directory: Directory, path: PathBuf, staged: Staged, file: File) -> Self {
        let parts = Arc::new(Mutex::new(Some(Parts { staged, file })));
        Self { directory, path, parts, offset: 0 }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let at = self.offset;
        self.offset += u64::try_from(data.content_length()).expect("a length fits in 64 bits");
        let (directory, parts) = (self.directory.clone(), Arc::clone(&self.parts));
        async move {
            let write = move |writer: &Writer| {
                let mut parts = lock(&parts);
                let Parts { file, .. } = parts.as_mut().ok_or_else(ended)?;
                file.seek(SeekFrom::Start(at))?;
                data.iter().try_for_each(|piece| writer.write(file, piece))
            };
            directory.blocking(write).await.map_err(failed)
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (path, parts) = (self.path.clone(), Arc::clone(&self.parts));
        let finish = move |writer: &Writer| {
            let Parts { staged, file } = lock(&parts).take().ok_or_else(ended)?;
            let large = file.metadata()?.len() > RENEWED;
            if large {
                // Whoever looks for it meanwhile is not told that it is there.
                lock(&writer.uncertain).insert(path.clone());
            }
            let published = writer.publish(staged, &file, &path, false)?;
            lock(&writer.uncertain).remove(&path);
            Ok(published)
        };
        self.directory.blocking(finish).await.map(result_of).map_err(failed)
    }

    async fn abort(&mut self) -> Result<()> {
        let parts = Arc::clone(&self.parts);
        let give_up = move |_: &Writer| {
            drop(lock(&parts).take().ok_or_else(ended)?);
            Ok(())
        };
        self.directory.blocking(give_up).await.map_err(failed)
    }
}

fn ended() -> io::Error {
    io::Error::other("the upload has ended")
}
