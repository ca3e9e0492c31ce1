//! Where images are made, in a request or after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use respond_async::problem::types;
use respond_async::respond::Created;
use respond_async::time::{Clock, SystemClock};
use respond_async::{Context, OperationId, Problem};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::gallery::Gallery;
use crate::internal;
use crate::pipeline::{self, Upload};

/// When whoever found no place may come again.
const PAUSE: Duration = Duration::from_secs(2);

/// Where images are made and kept. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct Workshop {
    pub(crate) gallery: Gallery,
    /// As many images at a time as there are cores, whichever way they were asked for.
    cores: Arc<Semaphore>,
    /// For requests without a preference: how many others wait is bounded by what accepts them.
    places: Arc<Semaphore>,
}

impl Workshop {
    pub(crate) fn new(gallery: Gallery, cores: usize, places: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { gallery, cores: semaphore(cores), places: semaphore(places) }
    }

    /// The job itself, in the request or after it, in this process or the one that was started in
    /// its place.
    pub(crate) async fn enhance(
        self,
        upload: Upload,
        context: Context,
    ) -> Result<Created, Problem> {
        let (operation, place) = match context.operation_id() {
            Some(id) => (id, None),
            None => (new_id()?, Some(self.place()?)),
        };
        let id = image_id(operation);
        let core = self.cores.acquire_owned().await.map_err(|error| internal(&error))?;
        let hung_up = HungUp::default();
        let stop = Arc::clone(&hung_up.0);
        let work = tokio::task::spawn_blocking(move || {
            let (_core, _place) = (core, place);
            let report = |fraction: f64, message: &str| context.progress(fraction, message);
            let stop = || stop.load(Ordering::Relaxed) || context.is_canceled();
            let enhanced = pipeline::enhance(&upload, report, &stop)?;
            self.gallery
                .save(&id, &enhanced, upload.bytes().len())
                .map_err(|error| internal(&error))
        });
        let picture = work.await.map_err(|error| internal(&error))??;

        Ok(Created::at(format!("/images/{}", picture.id)).json(&picture))
    }

    fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
        let full = || Problem::new(types::OVERLOADED).with_retry_after(PAUSE);
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())
    }
}

fn new_id() -> Result<OperationId, Problem> {
    OperationId::generate(SystemClock.now()).map_err(|error| internal(&error))
}

/// What an operation's image is called: always the same, so that a second attempt makes no second image, and
/// nothing that leads back. Whoever is given an image must not come to its operation by that, which of a client
/// without a name is guarded by its id alone.
fn image_id(operation: OperationId) -> String {
    let digest = Sha256::digest(operation.to_string());
    let mut id = String::with_capacity(36);
    for (at, byte) in digest.iter().take(16).enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        id.extend([byte >> 4, byte & 15].iter().filter_map(|&it| char::from_digit(it.into(), 16)));
    }
    id
}

/// Tells the work to stop when nobody waits for it any more: the future that it belongs to is gone.
#[derive(Default)]
struct HungUp(Arc<AtomicBool>);

impl Drop for HungUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use respond_async::Owner;
    use respond_async::prefer::Preferences;
    use respond_async::store::ListQuery;

    use super::*;
    use crate::settings::WAITING_LIMIT;
    use crate::{Images, Settings};

    fn upload() -> Upload {
        let mut png = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(8, 8).write_to(&mut png, image::ImageFormat::Png).unwrap();
        Upload::check(None, Bytes::from(png.into_inner())).unwrap()
    }

    #[tokio::test]
    async fn who_waits_for_a_core_has_a_place_or_is_told_to_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(Gallery::open(folder.path()).unwrap(), 1, 2);
        let busy = Arc::clone(&workshop.cores).acquire_owned().await.unwrap();
        let enhance = || tokio::spawn(workshop.clone().enhance(upload(), Context::default()));
        let waiting = [enhance(), enhance()];
        while workshop.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let problem = enhance().await.unwrap().unwrap_err();
        assert!(problem.is(types::OVERLOADED));
        drop(busy);
        for waiting in waiting {
            assert!(waiting.await.unwrap().is_ok());
        }
        assert!(enhance().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_waits_for_an_operation_beyond_the_bound_has_it_stored() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: folder.path().to_owned(), ..Settings::default() };
        let images = Images::start(&settings).await.unwrap();
        let cores = Arc::clone(&images.workshop.cores);
        let count = cores.available_permits();
        let busy = cores.acquire_many_owned(u32::try_from(count).unwrap()).await.unwrap();
        let ann = Owner::new("ann").unwrap();
        let waiting: Vec<_> = (0..count + WAITING_LIMIT + 3)
            .map(|_| {
                let (images, ann) = (images.clone(), ann.clone());
                tokio::spawn(async move {
                    let preferences = Preferences::parse(b"respond-async, wait=25").unwrap();
                    let kick_off = images.operations.kick_off(&preferences).owner(ann);
                    kick_off.respond(upload()).await.status()
                })
            })
            .collect();
        let stored = async {
            let list = || images.operations.list(&ann, ListQuery::default());
            // A worker that looks for something to do may have the places for a moment.
            while list().await.unwrap().operations.len() < 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), stored).await.unwrap();
        drop(busy);
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), 201);
        }
    }

    #[test]
    fn an_image_does_not_tell_of_its_operation() {
        let id = OperationId::generate(SystemClock.now()).unwrap();
        let (image, operation) = (image_id(id), id.to_string());
        assert_eq!((image.len(), image_id(id)), (36, image.clone()));
        let same = image.split('-').zip(operation.split('-')).filter(|(one, other)| one == other);
        // One word of four digits may be the same by chance.
        assert!(same.count() < 3, "{image} {operation}");
    }
}
