//! The results: a folder of pictures that outlives the process.
//!
//! - A picture is a folder named after its id, with the encoded image and `picture.json` in it. It
//!   is prepared under another name, and one rename makes it visible, whole or not at all.
//! - The first to save under an id wins, and whoever comes second is given what the first has
//!   saved. Work that runs again after a crash, or that two replicas do at once over one folder,
//!   ends in one picture that never changes.
//! - Everything here blocks, like the file system beneath it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use respond_async::header::{EntityTag, InvalidEntityTag};
use respond_async::time::{Clock, SystemClock, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::pipeline::{Enhanced, Format};

/// The image in a picture's folder.
const IMAGE: &str = "image";
/// What is known about it, as JSON.
const PICTURE: &str = "picture.json";
/// How the folder of a picture that is being saved is named. No id begins like this.
const UNFINISHED: &str = "unfinished-";
/// No save takes this long: an unfinished folder of this age was left by a process that died.
const STALE: Duration = Duration::from_secs(60 * 60);

/// A saved picture, as a client sees it and as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Picture {
    /// Names the picture in this gallery.
    pub(crate) id: String,
    /// The format of the image.
    #[serde(rename = "content_type")]
    pub(crate) format: Format,
    /// In pixels.
    pub(crate) width: u32,
    /// In pixels.
    pub(crate) height: u32,
    /// How long the image is.
    pub(crate) bytes: usize,
    /// How long the upload was.
    pub(crate) original_bytes: usize,
    /// When it was saved.
    pub(crate) created: Timestamp,
    /// CRC-32 of the image, in hexadecimal digits.
    pub(crate) crc32: String,
}

impl Picture {
    /// The image's entity tag, made of its length and checksum. A picture never changes, so it need
    /// not be safe against forgery.
    pub(crate) fn tag(&self) -> Result<EntityTag, InvalidEntityTag> {
        EntityTag::new(&format!("{:x}-{}", self.bytes, self.crc32))
    }
}

/// A folder of pictures.
#[derive(Clone, Debug)]
pub(crate) struct Gallery {
    folder: PathBuf,
}

impl Gallery {
    /// Opens the folder, makes it where it is missing, and clears away what crashed processes left.
    pub(crate) fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) && is_stale(&entry) {
                // Another replica may clear it away at the same time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { folder })
    }

    /// Saves a picture, so that it is still there after a power cut.
    ///
    /// If there is one with this id already, nothing is written and that one is returned.
    pub(crate) fn save(
        &self,
        id: &str,
        enhanced: &Enhanced,
        original_bytes: usize,
    ) -> io::Result<Picture> {
        if !is_id(id) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an id of a picture"));
        }
        let picture = match self.picture(id)? {
            Some(saved) => saved,
            None => self.publish(
                Picture {
                    id: id.to_owned(),
                    format: enhanced.format,
                    width: enhanced.width,
                    height: enhanced.height,
                    bytes: enhanced.bytes.len(),
                    original_bytes,
                    created: SystemClock.now(),
                    crc32: format!("{:08x}", crc32fast::hash(&enhanced.bytes)),
                },
                &enhanced.bytes,
            )?,
        };
        // Also for a picture that was there: whoever renamed it may have died before this.
        sync_folder(&self.folder)?;
        Ok(picture)
    }

    /// The picture and its image. There is none for a name that no picture can have.
    pub(crate) fn load(&self, id: &str) -> io::Result<Option<(Picture, Bytes)>> {
        match self.picture(id)? {
            Some(picture) => {
                let image = fs::read(self.folder.join(id).join(IMAGE))?;
                Ok(Some((picture, image.into())))
            }
            None => Ok(None),
        }
    }

    fn picture(&self, id: &str) -> io::Result<Option<Picture>> {
        if !is_id(id) {
            return Ok(None);
        }
        match fs::read(self.folder.join(id).join(PICTURE)) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a picture visible, unless somebody else was first: then it is theirs that is returned.
    fn publish(&self, picture: Picture, image: &[u8]) -> io::Result<Picture> {
        let unfinished = self.unfinished_folder()?;
        let renamed = write(&unfinished, &picture, image)
            .and_then(|()| fs::rename(&unfinished, self.folder.join(&picture.id)));
        match renamed {
            Ok(()) => Ok(picture),
            Err(error) => {
                // Should this fail too, `open` clears the folder away once it is stale.
                let _ = fs::remove_dir_all(&unfinished);
                // No rename replaces a folder that has files in it.
                self.picture(&picture.id)?.ok_or(error)
            }
        }
    }

    /// A new folder that nobody else writes to.
    fn unfinished_folder(&self) -> io::Result<PathBuf> {
        let mut number = 0_u64;
        loop {
            let folder = self.folder.join(format!("{UNFINISHED}{number}"));
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => return made.map(|()| folder),
            }
        }
    }
}

/// Whether this can name a picture: the letters of a UUID, and with them no path that leads
/// elsewhere.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// Whether nobody can be at work on a folder any more. One that has just vanished was at work.
fn is_stale(entry: &fs::DirEntry) -> bool {
    entry
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > STALE))
}

/// Fills a picture's folder, through to the disk.
fn write(folder: &Path, picture: &Picture, image: &[u8]) -> io::Result<()> {
    write_file(&folder.join(IMAGE), image)?;
    write_file(&folder.join(PICTURE), &serde_json::to_vec_pretty(picture)?)?;
    sync_folder(folder)
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes the names in a folder as durable as the files that they name.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows does not let a folder be opened as a file.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests;
