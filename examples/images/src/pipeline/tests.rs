use std::cell::Cell;

use image::{Rgb, RgbImage, Rgba, RgbaImage};

use super::*;

/// A picture with edges to sharpen: squares of 8 pixels on a gradient.
fn squares(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let square = if (x / 8 + y / 8) % 2 == 0 { 60 } else { 0 };
        let [right, down] = [x * 150 / width, y * 150 / height].map(at_most_150);
        Rgb([40 + right + square, 40 + down + square, 100])
    })
}

fn at_most_150(value: u32) -> u8 {
    u8::try_from(value.min(150)).unwrap()
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 95)).unwrap();
    bytes
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.into().write_with_encoder(PngEncoder::new(&mut bytes)).unwrap();
    bytes
}

/// A PNG header that promises these dimensions, and not one pixel.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(&header);
    bytes.extend(crc32fast::hash(&header).to_be_bytes());
    bytes.extend(b"\0\0\0\0IDAT");
    bytes.extend(crc32fast::hash(b"IDAT").to_be_bytes());
    bytes
}

fn check(content_type: Option<&str>, bytes: Vec<u8>) -> Result<Upload, Refusal> {
    Upload::check(content_type, bytes.into())
}

#[track_caller]
fn enhanced(bytes: Vec<u8>) -> (Enhanced, DynamicImage) {
    let upload = check(None, bytes).unwrap();
    let enhanced = enhance(&upload, |_, _| {}, &|| false).unwrap();
    let image =
        image::load_from_memory_with_format(&enhanced.bytes, enhanced.format.into()).unwrap();
    assert_eq!((image.width(), image.height()), (enhanced.width, enhanced.height));
    (enhanced, image)
}

#[track_caller]
fn refused_late(bytes: Vec<u8>) -> Refusal {
    let upload = check(None, bytes).expect("the header is good");
    match enhance(&upload, |_, _| {}, &|| false) {
        Err(EnhanceError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_media_type_is_compared_as_such() {
    let image = squares(8, 8);
    for content_type in
        [None, Some("image/jpeg"), Some("IMAGE/JPEG"), Some(" image/jpeg ; q=\"a;b\"")]
    {
        let upload = check(content_type, jpeg(&image)).unwrap();
        assert_eq!(upload.format, Format::Jpeg, "{content_type:?}");
    }
    for content_type in [None, Some("image/png"), Some("Image/Png;x=y")] {
        let upload = check(content_type, png(image.clone())).unwrap();
        assert_eq!(upload.format, Format::Png, "{content_type:?}");
    }
    for content_type in ["text/plain", "image/gif", "image/jpg", "image/jpeg+x", "image", ""] {
        let refusal = check(Some(content_type), jpeg(&image)).unwrap_err();
        assert_eq!(refusal, Refusal::UnsupportedType, "{content_type:?}");
    }
}

#[test]
fn what_is_no_image_is_refused_at_once() {
    let lies = "this is no readable image: its content is not what its media type says";
    let damaged = "this is no readable image: its header is damaged";
    let mut no_height = jpeg(&squares(8, 8));
    let frame = no_height.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    no_height[frame + 5..frame + 7].fill(0);
    let cases: [(&str, &str, Vec<u8>, &str); 8] = [
        ("garbage", "image/jpeg", b"garbage".to_vec(), lies),
        ("nothing", "image/jpeg", Vec::new(), lies),
        ("PNG sent as JPEG", "image/jpeg", png(squares(8, 8)), lies),
        ("JPEG sent as PNG", "image/png", jpeg(&squares(8, 8)), lies),
        ("half a header", "image/jpeg", jpeg(&squares(8, 8))[..100].to_vec(), damaged),
        ("magic bytes alone", "image/png", png_header(8, 8)[..8].to_vec(), damaged),
        ("PNG without width", "image/png", png_header(0, 8), damaged),
        ("JPEG without height", "image/jpeg", no_height, damaged),
    ];
    for (what, content_type, bytes, expected) in cases {
        assert_eq!(check(Some(content_type), bytes).unwrap_err().to_string(), expected, "{what}");
    }
    assert_eq!(check(None, b"garbage".to_vec()).unwrap_err(), Refusal::UnsupportedType);
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    for (width, height) in [(60_000, 60_000), (10_000, 5_001), (65_536, 1), (1, 65_536)] {
        let refusal = check(None, png_header(width, height)).unwrap_err();
        assert_eq!(refusal, Refusal::TooManyPixels, "{width} x {height}");
    }
    for (width, height) in [(10_000, 5_000), (65_535, 1)] {
        assert!(check(None, png_header(width, height)).is_ok(), "{width} x {height}");
    }

    let mut image = jpeg(&squares(8, 8));
    image.resize(MAX_UPLOAD_BYTES, 0);
    assert!(check(None, image.clone()).is_ok());
    image.push(0);
    assert_eq!(check(None, image).unwrap_err(), Refusal::TooLarge);
}

#[test]
fn refusals_say_what_is_taken() {
    assert_eq!(Refusal::UnsupportedType.to_string(), "only image/jpeg and image/png are taken");
    assert_eq!(Refusal::TooLarge.to_string(), "an image may have at most 16 MiB");
    assert_eq!(Refusal::TooManyPixels.to_string(), "an image may have at most 50 megapixels");
}

#[test]
fn damage_behind_the_header_is_found_by_the_work() {
    let image = squares(64, 64);
    for (what, mut bytes) in [("JPEG", jpeg(&image)), ("PNG", png(image.clone()))] {
        bytes.truncate(bytes.len() - bytes.len() / 4);
        assert!(matches!(refused_late(bytes), Refusal::NotAnImage(_)), "{what}");
    }
    let mut garbage = png(image);
    let middle = garbage.len() / 2;
    garbage[middle] ^= 0xFF;
    assert_eq!(refused_late(garbage), Refusal::NotAnImage("its pixels are damaged"));
}

#[test]
fn what_follows_a_complete_jpeg_is_ignored() {
    let mut bytes = jpeg(&squares(64, 64));
    bytes.extend(b"an appendix, as cameras add them");
    enhanced(bytes);
}

#[test]
fn formats_stay_unless_png_gains_nothing() {
    let image = squares(64, 48);
    let transparent = RgbaImage::from_fn(64, 48, |x, y| {
        let [r, g, b] = image.get_pixel(x, y).0;
        Rgba([r, g, b, if x < 32 { 0 } else { 200 }])
    });
    let grey16 = DynamicImage::from(image.clone()).into_luma16();
    for (what, bytes, format) in [
        ("JPEG", jpeg(&image), Format::Jpeg),
        ("opaque PNG", png(image), Format::Jpeg),
        ("grey PNG of 16 bits", png(grey16), Format::Jpeg),
        ("transparent PNG", png(transparent), Format::Png),
    ] {
        let (enhanced, _) = enhanced(bytes);
        assert_eq!(enhanced.format, format, "{what}");
        assert_eq!((enhanced.width, enhanced.height), (64, 48), "{what}");
    }
}

#[test]
fn opacity_is_kept() {
    let image = RgbaImage::from_fn(32, 32, |x, y| Rgba([90, 90, 90, at_most_150(x + 2 * y)]));
    let (_, result) = enhanced(png(image.clone()));
    for (before, after) in image.pixels().zip(result.into_rgba8().pixels()) {
        assert_eq!(before[3], after[3]);
    }
}

#[test]
fn transparent_black_does_not_darken_what_it_touches() {
    // Every other column is white, the rest is black that nobody sees.
    let image = RgbaImage::from_fn(SCREEN_SIDE * 2, 4, |x, _| {
        if x % 2 == 0 { Rgba([255; 4]) } else { Rgba([0; 4]) }
    });
    let scaled = scaled(image.into()).into_rgba8();
    assert!(scaled.pixels().all(|pixel| pixel[0] > 250 && pixel[3] > 100));
}

#[test]
fn large_pictures_are_scaled_to_fit() {
    for (size, expected) in [
        ((3200, 400), (1600, 200)),
        ((400, 3200), (200, 1600)),
        ((1601, 1), (1600, 1)),
        ((1600, 1600), (1600, 1600)),
        ((1, 1), (1, 1)),
    ] {
        let (enhanced, _) = enhanced(jpeg(&squares(size.0, size.1)));
        assert_eq!((enhanced.width, enhanced.height), expected, "{size:?}");
    }
}

#[test]
fn edges_get_steeper_and_plains_stay() {
    let edge = RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { 100 } else { 150 }; 3]));
    let (_, result) = enhanced(png(edge));
    let row: Vec<u8> = result.into_rgb8().rows().nth(32).unwrap().map(|pixel| pixel[0]).collect();
    assert!(row[31] < 97 && row[32] > 153, "{row:?}");
    assert!(row[4].abs_diff(100) <= 2 && row[60].abs_diff(150) <= 2, "{row:?}");
}

#[test]
fn bands_leave_no_seams() {
    let image = squares(40, BAND * 3 + 7);
    let brightness = imageops::grayscale(&image);
    let mut in_bands = image.clone();
    for top in (0..image.height()).step_by(BAND as usize) {
        sharpen_band(&mut in_bands, &brightness, top);
    }
    let blurred = imageops::blur(&brightness, SHARPEN_RADIUS);
    for (x, y, pixel) in image.enumerate_pixels() {
        let more =
            (i16::from(brightness.get_pixel(x, y)[0]) - i16::from(blurred.get_pixel(x, y)[0])) / 2;
        let expected = pixel.0.map(|channel| (i16::from(channel) + more).clamp(0, 255));
        assert_eq!(in_bands.get_pixel(x, y).0.map(i16::from), expected, "at {x}, {y}");
    }
}

#[test]
fn the_cameras_orientation_is_applied() {
    // One entry, orientation (0x0112), 6: the picture's top is on the right.
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let image =
        RgbImage::from_fn(64, 32, |x, _| Rgb(if x < 32 { [200, 0, 0] } else { [0, 0, 200] }));
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    image.write_with_encoder(encoder).unwrap();

    let (enhanced, result) = enhanced(bytes);
    let result = result.into_rgb8();
    assert_eq!((enhanced.width, enhanced.height), (32, 64));
    assert!(result.get_pixel(16, 8)[0] > 150, "red is on top");
    assert!(result.get_pixel(16, 56)[2] > 150, "blue is below");
    assert!(!enhanced.bytes.windows(4).any(|bytes| bytes == b"Exif"), "the rest is left out");
}

#[test]
fn only_a_profile_for_rgb_is_kept() {
    for (space, kept) in [(b"RGB ", true), (b"CMYK", false)] {
        let mut profile = vec![0; 128];
        profile[16..20].copy_from_slice(space);
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new(&mut bytes);
        encoder.set_icc_profile(profile.clone()).unwrap();
        squares(16, 16).write_with_encoder(encoder).unwrap();

        let (enhanced, _) = enhanced(bytes);
        let result = check(None, enhanced.bytes.to_vec()).unwrap();
        let found = result.decoder().unwrap().icc_profile().unwrap();
        assert_eq!(found, kept.then_some(profile));
    }
}

#[test]
fn the_same_upload_becomes_the_same_bytes() {
    let bytes = jpeg(&squares(100, 100));
    assert_eq!(enhanced(bytes.clone()).0.bytes, enhanced(bytes).0.bytes);
}

#[test]
fn progress_grows_from_nothing_to_all() {
    for (image, bands) in [(squares(1, 1), 1), (squares(64, BAND * 5), 5)] {
        let upload = check(None, jpeg(&image)).unwrap();
        let mut reports = Vec::new();
        let report = |fraction, message: &str| reports.push((fraction, message.to_owned()));
        enhance(&upload, report, &|| false).unwrap();

        let messages: Vec<&str> = reports.iter().map(|(_, message)| message.as_str()).collect();
        assert_eq!(messages[..2], ["decoding", "scaling"]);
        assert_eq!(messages[2..2 + bands], vec!["sharpening"; bands]);
        assert_eq!(messages[2 + bands..], ["compressing", "done"]);
        assert!(reports.is_sorted_by(|a, b| a.0 < b.0), "{reports:?}");
        assert_eq!(reports.first().map(|r| r.0), Some(0.0));
        assert_eq!(reports.last().map(|r| r.0), Some(1.0));
    }
}

#[test]
fn the_work_stops_wherever_it_is_asked_to() {
    let upload = check(None, jpeg(&squares(64, BAND * 4))).unwrap();
    let asked = Cell::new(0);
    enhance(&upload, |_, _| {}, &|| {
        asked.set(asked.get() + 1);
        false
    })
    .unwrap();
    assert_eq!(asked.get(), 7, "three steps and four bands");

    for limit in 0..asked.get() {
        let reports = Cell::new(0);
        let result =
            enhance(&upload, |_, _| reports.set(reports.get() + 1), &|| reports.get() == limit);
        assert!(matches!(result, Err(EnhanceError::Stopped)), "{limit}: {result:?}");
        assert_eq!(reports.get(), limit);
    }
}
