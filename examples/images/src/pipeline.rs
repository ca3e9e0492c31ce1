//! What happens to a picture: it is made to fit a screen, sharpened and compressed.
//!
//! - [`Upload::check`] reads no further than the header. What it refuses, a client learns at once,
//!   whichever kind of answer it prefers.
//! - [`enhance`] does the work, which takes from milliseconds to seconds of one core. It blocks:
//!   call it on a thread that may be blocked, such as one of tokio's `spawn_blocking`.
//! - The same upload always becomes the same bytes, so work that is done twice does no harm.
//!
//! JPEG stays JPEG. PNG stays PNG if it can be transparent, and becomes JPEG if it cannot. Of the
//! metadata the result keeps the colour profile; the camera's orientation is applied, and the rest,
//! such as where the photograph was taken, is left out.

use std::io::Cursor;

use bytes::Bytes;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{
    DynamicImage, GrayImage, ImageBuffer, ImageDecoder, ImageEncoder, ImageError, ImageFormat,
    ImageReader, Limits, Pixel, PixelWithColorType,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest body that is taken: 16 MiB, twice what a good phone makes of a photograph.
pub const MAX_UPLOAD_BYTES: usize = 16 << 20;
/// A few kilobytes of PNG can unfold into gigabytes of pixels.
const MAX_PIXELS: u64 = 50_000_000;
/// The longest side that JPEG knows. Scaling a picture that is a single row needs a lot of memory
/// for its length.
const MAX_SIDE: u32 = 65_535;
/// What one decoded picture may take: `MAX_PIXELS` at the three or four bytes that a pixel usually
/// has.
const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Pictures with a longer side than this are scaled down to it.
const SCREEN_SIDE: u32 = 1600;
/// How far an edge reaches when its neighbourhood is compared with it, in pixels.
const SHARPEN_RADIUS: f32 = 0.8;
/// Rows that are sharpened between two reports.
const BAND: u32 = 64;
/// Rows on each side of a band that are blurred with it, so that no seam shows. More than the
/// radius reaches.
const MARGIN: u32 = 4;
/// Of 100: a photograph loses nothing that one would miss on a screen.
const JPEG_QUALITY: u8 = 82;

/// A format that this service reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) enum Format {
    /// JPEG, for photographs.
    #[serde(rename = "image/jpeg")]
    Jpeg,
    /// PNG, for what has transparent parts.
    #[serde(rename = "image/png")]
    Png,
}

impl Format {
    /// The format's media type, as in `Content-Type`.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }

    /// The format that a `Content-Type` names. Its parameters say nothing about images and are
    /// ignored.
    fn named(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        [Self::Jpeg, Self::Png]
            .into_iter()
            .find(|f| media_type.eq_ignore_ascii_case(f.media_type()))
    }

    /// The format whose first bytes these are.
    fn sniffed(bytes: &[u8]) -> Option<Self> {
        match image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => Some(Self::Jpeg),
            Ok(ImageFormat::Png) => Some(Self::Png),
            _ => None,
        }
    }
}

impl From<Format> for ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Jpeg => Self::Jpeg,
            Format::Png => Self::Png,
        }
    }
}

/// Why an upload is not taken. Each is the client's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Neither JPEG nor PNG: 415.
    #[error("only image/jpeg and image/png are taken")]
    UnsupportedType,
    /// Longer than [`MAX_UPLOAD_BYTES`]: 413.
    #[error("an image may have at most {} MiB", MAX_UPLOAD_BYTES >> 20)]
    TooLarge,
    /// Unfolds into more than this service has memory for: 422.
    #[error("an image may have at most {} megapixels", MAX_PIXELS / 1_000_000)]
    TooManyPixels,
    /// Not what it says it is, or damaged: 422.
    #[error("this is no readable image: {0}")]
    NotAnImage(&'static str),
}

/// Why there is no enhanced picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnhanceError {
    /// The upload turned out to be damaged behind its header.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The caller asked to stop.
    #[error("stopped before the picture was done")]
    Stopped,
    /// The result could not be written. No upload should lead here, so it is this service's fault.
    #[error("the enhanced picture could not be encoded")]
    Encode(#[source] ImageError),
}

/// An image that passed the check of its header. Its pixels may still turn out to be damaged.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    format: Format,
    bytes: Bytes,
}

impl Upload {
    /// Refuses what can be refused without decoding: by length, by media type, by header.
    ///
    /// Without a `Content-Type` the first bytes decide what the upload is.
    pub(crate) fn check(content_type: Option<&str>, bytes: Bytes) -> Result<Self, Refusal> {
        if bytes.len() > MAX_UPLOAD_BYTES {
            return Err(Refusal::TooLarge);
        }
        let sniffed = Format::sniffed(&bytes);
        let format = match content_type {
            Some(name) => Format::named(name),
            None => sniffed,
        }
        .ok_or(Refusal::UnsupportedType)?;
        if sniffed != Some(format) {
            return Err(Refusal::NotAnImage("its content is not what its media type says"));
        }
        let upload = Self { format, bytes };
        upload.decoder()?;
        Ok(upload)
    }

    /// As it came.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Reads the header and keeps the limits; the pixels are left for later.
    fn decoder(&self) -> Result<impl ImageDecoder + '_, Refusal> {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_DECODED_BYTES);
        let mut reader = ImageReader::with_format(Cursor::new(&self.bytes[..]), self.format.into());
        reader.limits(limits);
        let decoder =
            reader.into_decoder().map_err(|error| refused(&error, "its header is damaged"))?;

        let (width, height) = decoder.dimensions();
        if width.max(height) > MAX_SIDE
            || u64::from(width) * u64::from(height) > MAX_PIXELS
            || decoder.total_bytes() > MAX_DECODED_BYTES
        {
            return Err(Refusal::TooManyPixels);
        }
        Ok(decoder)
    }

    /// Whether a JPEG ends where it should.
    ///
    /// The decoder fills up what is missing with grey, which may do for a browser but is not what
    /// was photographed. Entropy-coded data escapes each 0xFF, so a marker behind the last start of
    /// scan is a real one.
    fn is_complete(&self) -> bool {
        const START_OF_SCAN: [u8; 2] = [0xFF, 0xDA];
        const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
        // PNG has lengths and checksums: its decoder knows.
        self.format == Format::Png
            || self
                .bytes
                .windows(2)
                .rev()
                .find(|pair| *pair == START_OF_SCAN || *pair == END_OF_IMAGE)
                .is_some_and(|marker| marker == END_OF_IMAGE)
    }
}

/// The decoder's errors name the insides of a format: a client gets plain words.
fn refused(error: &ImageError, reason: &'static str) -> Refusal {
    match error {
        ImageError::Limits(_) => Refusal::TooManyPixels,
        ImageError::Unsupported(_) => {
            Refusal::NotAnImage("it uses a part of its format that is not supported")
        }
        _ => Refusal::NotAnImage(reason),
    }
}

/// A picture that fits a screen, sharpened and compressed.
#[derive(Clone, Debug)]
pub(crate) struct Enhanced {
    /// What it is.
    pub(crate) format: Format,
    /// The encoded picture.
    pub(crate) bytes: Bytes,
    /// In pixels.
    pub(crate) width: u32,
    /// In pixels.
    pub(crate) height: u32,
}

/// Decodes, scales down, sharpens and compresses.
///
/// `report` gets how much is done, from 0 to 1 and never less than before, and what is being done.
/// `stop` is asked before each step and each band of rows; once it says yes, the work ends with
/// [`EnhanceError::Stopped`].
pub(crate) fn enhance(
    upload: &Upload,
    report: impl FnMut(f64, &str),
    stop: &dyn Fn() -> bool,
) -> Result<Enhanced, EnhanceError> {
    let mut steps = Steps { report, stop };

    steps.begin(0.0, "decoding")?;
    let mut decoder = upload.decoder()?;
    if !upload.is_complete() {
        return Err(Refusal::NotAnImage("it ends in the middle").into());
    }
    // Both are extras: a picture whose extras are damaged is shown without them.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().ok().flatten().filter(|profile| is_rgb(profile));
    let pixels = DynamicImage::from_decoder(decoder)
        .map_err(|error| refused(&error, "its pixels are damaged"))?;

    steps.begin(0.3, "scaling")?;
    let mut image = scaled(if pixels.color().has_alpha() {
        pixels.into_rgba8().into()
    } else {
        pixels.into_rgb8().into()
    });
    image.apply_orientation(orientation);

    match image {
        DynamicImage::ImageRgba8(image) => finish(image, Format::Png, profile, steps),
        image => finish(image.into_rgb8(), Format::Jpeg, profile, steps),
    }
}

/// Tells the caller about each step, and lets it stop the work there.
struct Steps<'a, R> {
    report: R,
    stop: &'a dyn Fn() -> bool,
}

impl<R: FnMut(f64, &str)> Steps<'_, R> {
    fn begin(&mut self, fraction: f64, message: &str) -> Result<(), EnhanceError> {
        if (self.stop)() {
            return Err(EnhanceError::Stopped);
        }
        (self.report)(fraction, message);
        Ok(())
    }
}

/// Whether a colour profile is for what the decoder made, and not for the CMYK or grey that it was
/// made from.
fn is_rgb(profile: &[u8]) -> bool {
    // ICC.1 §7.2: the header names the colour space in bytes 16 to 19.
    profile.get(16..20) == Some(b"RGB ".as_slice())
}

/// Scales down what is larger than a screen.
fn scaled(image: DynamicImage) -> DynamicImage {
    if image.width().max(image.height()) <= SCREEN_SIDE {
        return image;
    }
    let scale = |image: DynamicImage| image.resize(SCREEN_SIDE, SCREEN_SIDE, FilterType::Lanczos3);
    match image {
        // A transparent pixel has a colour too, often black. Weighed by its opacity it cannot
        // darken its neighbours.
        DynamicImage::ImageRgba8(mut pixels) => {
            for pixel in pixels.pixels_mut() {
                let opacity = u16::from(pixel[3]);
                pixel
                    .apply_without_alpha(|channel| at_most_255(u16::from(channel) * opacity / 255));
            }
            let mut pixels = scale(pixels.into()).into_rgba8();
            for pixel in pixels.pixels_mut() {
                let opacity = u16::from(pixel[3]).max(1);
                pixel
                    .apply_without_alpha(|channel| at_most_255(u16::from(channel) * 255 / opacity));
            }
            pixels.into()
        }
        opaque => scale(opaque),
    }
}

fn at_most_255(value: u16) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// Sharpens and compresses.
fn finish<P>(
    mut image: ImageBuffer<P, Vec<u8>>,
    format: Format,
    profile: Option<Vec<u8>>,
    mut steps: Steps<'_, impl FnMut(f64, &str)>,
) -> Result<Enhanced, EnhanceError>
where
    P: PixelWithColorType<Subpixel = u8> + 'static,
{
    let (width, height) = image.dimensions();
    let brightness = imageops::grayscale(&image);
    for top in (0..height).step_by(BAND as usize) {
        steps.begin(0.5 + 0.35 * f64::from(top) / f64::from(height), "sharpening")?;
        sharpen_band(&mut image, &brightness, top);
    }

    steps.begin(0.85, "compressing")?;
    let mut bytes = Vec::new();
    match format {
        Format::Jpeg => {
            write(&image, JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY), profile)
        }
        Format::Png => write(&image, PngEncoder::new(&mut bytes), profile),
    }
    .map_err(EnhanceError::Encode)?;

    (steps.report)(1.0, "done");
    Ok(Enhanced { format, bytes: bytes.into(), width, height })
}

/// Unsharp masking: half of what sets a pixel off from its blurred neighbourhood is added to it.
///
/// It looks at the brightness alone, so that edges get no coloured fringes. Half leaves noise of
/// one level alone, and foliage does not turn into grain.
fn sharpen_band<P>(image: &mut ImageBuffer<P, Vec<u8>>, brightness: &GrayImage, top: u32)
where
    P: Pixel<Subpixel = u8>,
{
    let (width, height) = image.dimensions();
    let from = top.saturating_sub(MARGIN);
    let to = height.min(top + BAND + MARGIN);
    let band = imageops::crop_imm(brightness, 0, from, width, to - from).to_image();
    let blurred = imageops::blur(&band, SHARPEN_RADIUS);

    for y in top..height.min(top + BAND) {
        for x in 0..width {
            let [sharp] = brightness.get_pixel(x, y).0;
            let [soft] = blurred.get_pixel(x, y - from).0;
            let (lighter, darker) =
                (sharp.saturating_sub(soft) / 2, soft.saturating_sub(sharp) / 2);
            image.get_pixel_mut(x, y).apply_without_alpha(|channel| {
                channel.saturating_add(lighter).saturating_sub(darker)
            });
        }
    }
}

fn write<P>(
    image: &ImageBuffer<P, Vec<u8>>,
    mut encoder: impl ImageEncoder,
    profile: Option<Vec<u8>>,
) -> Result<(), ImageError>
where
    P: PixelWithColorType<Subpixel = u8>,
{
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile).map_err(ImageError::Unsupported)?;
    }
    image.write_with_encoder(encoder)
}

#[cfg(test)]
mod tests;
