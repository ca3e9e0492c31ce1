use std::thread;
use std::time::SystemTime;

use super::*;

const ID: &str = "0198f3a2-7c1e-7d10-9a55-3f6b2c8d4e01";

fn enhanced(bytes: &'static [u8]) -> Enhanced {
    Enhanced { format: Format::Jpeg, bytes: Bytes::from_static(bytes), width: 4, height: 3 }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_was_saved_is_loaded_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let saved = Gallery::open(folder.path()).unwrap().save(ID, &enhanced(b"pixels"), 99).unwrap();

    let (loaded, image) = Gallery::open(folder.path()).unwrap().load(ID).unwrap().unwrap();
    assert_eq!(loaded, saved);
    assert_eq!(image, "pixels");
    assert_eq!((loaded.bytes, loaded.original_bytes), (6, 99));
    assert_eq!(names_in(folder.path()), [ID]);
}

#[test]
fn the_representation_names_its_members() {
    let folder = tempfile::tempdir().unwrap();
    let mut saved =
        Gallery::open(folder.path()).unwrap().save(ID, &enhanced(b"123456789"), 99).unwrap();
    saved.created = "2026-01-02T03:04:05.000Z".parse().unwrap();

    let expected = serde_json::json!({
        "id": ID,
        "content_type": "image/jpeg",
        "width": 4,
        "height": 3,
        "bytes": 9,
        "original_bytes": 99,
        "created": "2026-01-02T03:04:05.000Z",
        // The check value that catalogues of CRCs give for these nine digits.
        "crc32": "cbf43926",
    });
    assert_eq!(serde_json::to_value(&saved).unwrap(), expected);
    assert_eq!(saved.tag().unwrap().to_header_value(), "\"9-cbf43926\"");
}

#[test]
fn the_first_to_save_wins() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = Gallery::open(folder.path()).unwrap();
    let first = gallery.save(ID, &enhanced(b"first"), 1).unwrap();

    assert_eq!(gallery.save(ID, &enhanced(b"second"), 2).unwrap(), first);
    assert_eq!(gallery.load(ID).unwrap().unwrap(), (first, Bytes::from_static(b"first")));
}

#[test]
fn saving_at_once_ends_in_one_picture() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = Gallery::open(folder.path()).unwrap();
    let saved: Vec<Picture> = thread::scope(|scope| {
        let savers: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn({
                    let gallery = &gallery;
                    move || gallery.save(ID, &enhanced(b"pixels"), n)
                })
            })
            .collect();
        savers.into_iter().map(|saver| saver.join().unwrap().unwrap()).collect()
    });

    let (kept, _) = gallery.load(ID).unwrap().unwrap();
    assert!(saved.iter().all(|picture| *picture == kept), "{saved:#?}");
    assert_eq!(names_in(folder.path()), [ID]);
}

#[test]
fn only_ids_name_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = Gallery::open(folder.path().join("gallery")).unwrap();
    fs::create_dir(folder.path().join("gallery/UPPER")).unwrap();
    fs::write(folder.path().join("picture.json"), "{}").unwrap();
    let too_long = "a".repeat(65);

    for id in
        ["", ".", "..", "../gallery", "/etc", "a/b", "a\\b", "a\0", "UPPER", "g", "é", &too_long]
    {
        assert!(gallery.load(id).unwrap().is_none(), "{id:?}");
        let error = gallery.save(id, &enhanced(b"pixels"), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{id:?}");
    }
    assert!(gallery.load("abc").unwrap().is_none());
}

#[test]
fn what_a_crash_left_is_cleared_away_once_it_is_stale() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("unfinished-0"), folder.path().join("unfinished-1"));
    for unfinished in [&old, &new] {
        fs::create_dir(unfinished).unwrap();
        fs::write(unfinished.join(IMAGE), "half").unwrap();
    }
    File::open(&old).unwrap().set_modified(SystemTime::now() - 2 * STALE).unwrap();

    let gallery = Gallery::open(folder.path()).unwrap();
    assert_eq!(names_in(folder.path()), ["unfinished-1"]);
    gallery.save(ID, &enhanced(b"pixels"), 1).unwrap();
    assert!(gallery.load(ID).unwrap().is_some());
}

#[test]
fn a_failed_save_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = Gallery::open(folder.path()).unwrap();
    // A file is in the way of the picture's folder.
    fs::write(folder.path().join(ID), "").unwrap();

    assert!(gallery.save(ID, &enhanced(b"pixels"), 1).is_err());
    assert_eq!(names_in(folder.path()), [ID]);
}
