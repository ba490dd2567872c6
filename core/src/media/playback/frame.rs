//! What the program gets: decoded pictures and sound.

use std::time::{Duration, SystemTime};

use gst::glib;

use crate::media::receive::feed::captured;

/// The memory of a frame cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// It has no layout that is known, as GPU memory may have.
    #[error(
        "{0} has no layout that can be read: ask for VideoOutput::System or VideoOutput::Format"
    )]
    Layout(gst::Caps),
    /// The mapping failed.
    #[error("the memory of the frame cannot be mapped")]
    Map,
}

/// What pictures and sound have in common.
#[derive(Debug, Clone)]
struct Media {
    sample: gst::Sample,
    caps: gst::Caps,
    buffer: gst::Buffer,
    running_time: Duration,
}

impl Media {
    fn new(sample: gst::Sample) -> Option<Self> {
        let buffer = sample.buffer_owned()?;
        let pts = buffer.pts()?;
        // What comes before the segment began has no running time; decoders do not give it.
        let running_time = match sample.segment()?.downcast_ref::<gst::ClockTime>() {
            Some(segment) => segment.to_running_time(pts)?,
            None => pts,
        };
        Some(Self {
            caps: sample.caps_owned()?,
            buffer,
            running_time: running_time.into(),
            sample,
        })
    }
}

/// A decoded picture. Cheap to clone; nothing is copied.
#[derive(Debug, Clone)]
pub struct VideoFrame {
    media: Media,
    info: Option<gst_video::VideoInfo>,
}

/// A decoded piece of sound: 32-bit floats in the machine's byte order, interleaved. Cheap to clone; nothing is copied.
#[derive(Debug, Clone)]
pub struct AudioSamples {
    media: Media,
    info: gst_audio::AudioInfo,
}

impl VideoFrame {
    pub(super) fn new(sample: gst::Sample) -> Option<Self> {
        let media = Media::new(sample)?;
        Some(Self {
            info: gst_video::VideoInfo::from_caps(&media.caps).ok(),
            media,
        })
    }

    /// The picture for reading, in place.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn map(&self) -> Result<gst_video::VideoFrame<gst_video::video_frame::Readable>, MapError> {
        let info = self
            .info
            .as_ref()
            .ok_or_else(|| MapError::Layout(self.media.caps.clone()))?;
        gst_video::VideoFrame::from_buffer_readable(self.media.buffer.clone(), info)
            .map_err(|_| MapError::Map)
    }

    /// Size, format and the rest; none where the memory has no layout that is known.
    pub fn info(&self) -> Option<&gst_video::VideoInfo> {
        self.info.as_ref()
    }

    /// Size and format as caps, with the features of the memory.
    pub fn caps(&self) -> &gst::CapsRef {
        &self.media.caps
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        dimension(&self.media.caps, "width")
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        dimension(&self.media.caps, "height")
    }

    /// The memory.
    pub fn buffer(&self) -> &gst::BufferRef {
        &self.media.buffer
    }

    /// All of it, for other parts of GStreamer.
    pub fn sample(&self) -> &gst::Sample {
        &self.media.sample
    }

    /// When it is due, on the clock that all tracks played together share and without the latency.
    pub fn running_time(&self) -> Duration {
        self.media.running_time
    }

    /// When it was captured, by the publisher's clock; none where the broadcast does not say.
    pub fn captured(&self) -> Option<SystemTime> {
        captured(&self.media.buffer)
    }

    /// The picture as a PNG file. Blocks for as long as that takes.
    ///
    /// # Errors
    /// GStreamer's, as when the element `pngenc` of gstreamer1.0-plugins-good is not installed.
    pub fn png(&self) -> Result<Vec<u8>, glib::Error> {
        let caps = gst::Caps::new_empty_simple("image/png");
        let limit = gst::ClockTime::from_seconds(10);
        let png = gst_video::convert_sample(&self.media.sample, &caps, Some(limit))?;
        let map = png.buffer().and_then(|buffer| buffer.map_readable().ok());
        map.map(|map| map.to_vec()).ok_or_else(|| {
            glib::Error::new(gst::StreamError::Encode, "the encoder gave no picture")
        })
    }
}

fn dimension(caps: &gst::CapsRef, name: &str) -> u32 {
    caps.structure(0)
        .and_then(|structure| structure.get::<i32>(name).ok())
        .and_then(|value| value.try_into().ok())
        .unwrap_or_default()
}

impl AudioSamples {
    pub(super) fn new(sample: gst::Sample) -> Option<Self> {
        let media = Media::new(sample)?;
        Some(Self {
            info: gst_audio::AudioInfo::from_caps(&media.caps).ok()?,
            media,
        })
    }

    /// The samples for reading, in place.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn map(
        &self,
    ) -> Result<gst_audio::AudioBuffer<gst_audio::audio_buffer::Readable>, MapError> {
        gst_audio::AudioBuffer::from_buffer_readable(self.media.buffer.clone(), &self.info)
            .map_err(|_| MapError::Map)
    }

    /// The samples, copied: one of each channel, then the next of each channel.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn to_vec(&self) -> Result<Vec<f32>, MapError> {
        let map = self
            .media
            .buffer
            .map_readable()
            .map_err(|_| MapError::Map)?;
        let (samples, _) = map.as_chunks::<4>();
        Ok(samples
            .iter()
            .map(|bytes| f32::from_ne_bytes(*bytes))
            .collect())
    }

    /// Rate, channels and the rest.
    pub fn info(&self) -> &gst_audio::AudioInfo {
        &self.info
    }

    /// The memory.
    pub fn buffer(&self) -> &gst::BufferRef {
        &self.media.buffer
    }

    /// All of it, for other parts of GStreamer.
    pub fn sample(&self) -> &gst::Sample {
        &self.media.sample
    }

    /// When it is due, on the clock that all tracks played together share and without the latency.
    pub fn running_time(&self) -> Duration {
        self.media.running_time
    }

    /// When it was captured, by the publisher's clock; none where the broadcast does not say.
    pub fn captured(&self) -> Option<SystemTime> {
        captured(&self.media.buffer)
    }
}
