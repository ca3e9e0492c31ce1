//! The service as a part of a larger one, under a path of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use images::{Images, Settings};
use tower::ServiceExt;

#[tokio::test]
async fn a_key_under_one_path_is_not_that_under_another() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { data: folder.path().to_owned(), ..Settings::default() };
    let images = axum_images::app(Images::start(&settings).await.unwrap());
    let app = Router::new().nest("/ours", images.clone()).nest("/theirs", images);

    let mut pixel = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(1, 1).write_to(&mut pixel, image::ImageFormat::Jpeg).unwrap();
    let replayed = async |path: &str| {
        let request = Request::post(path)
            .header("content-type", "image/jpeg")
            .header("idempotency-key", "\"1\"")
            .header("x-user", "ann")
            .body(Body::from(pixel.get_ref().clone()));
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.headers().contains_key("idempotency-replayed")
    };
    assert!(!replayed("/ours/images").await);
    assert!(!replayed("/theirs/images").await);
    assert!(replayed("/ours/images").await);
}
