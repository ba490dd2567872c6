//! What a program can say about playback.

use std::time::Duration;

use crate::adaptive::Quality;

/// How a broadcast is played.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlaybackConfig {
    /// How long what came early is kept so that what comes late is still in time: 200 ms. The picture is shown this much
    /// after it could have been; what falls further behind is skipped.
    pub latency: Duration,
    /// Which rendition of the picture: the best that the network carries.
    pub quality: Quality,
    /// Which rendition of the sound: the best that the network carries.
    pub audio_quality: Quality,
    /// Whether frames wait for their time: they do.
    pub sync: Synchronisation,
    /// In which form the program gets pictures: in system memory, in the decoder's format.
    pub output: VideoOutput,
    /// Whether hardware may decode: it may.
    pub hardware: bool,
}

impl Default for PlaybackConfig {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(200),
            quality: Quality::default(),
            audio_quality: Quality::default(),
            sync: Synchronisation::default(),
            output: VideoOutput::default(),
            hardware: true,
        }
    }
}

impl PlaybackConfig {
    /// Sets the latency budget.
    pub fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Sets which rendition of the picture is wanted.
    pub fn with_quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// Sets which rendition of the sound is wanted.
    pub fn with_audio_quality(mut self, quality: Quality) -> Self {
        self.audio_quality = quality;
        self
    }

    /// Sets whether frames wait for their time.
    pub fn with_sync(mut self, sync: Synchronisation) -> Self {
        self.sync = sync;
        self
    }

    /// Sets the form of the pictures.
    pub fn with_output(mut self, output: VideoOutput) -> Self {
        self.output = output;
        self
    }

    /// Sets whether hardware may decode.
    pub fn with_hardware(mut self, hardware: bool) -> Self {
        self.hardware = hardware;
        self
    }
}

/// Whether frames wait for their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronisation {
    /// Each frame comes at its time plus the latency: smooth, and sound and picture together.
    #[default]
    Synced,
    /// Each frame comes as soon as it is decoded: as fast as can be, as uneven as the network is, sound and picture each
    /// by itself. For remote control, or for a program that times frames by their timestamps.
    Immediate,
}

/// In which form the program gets pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VideoOutput {
    /// In system memory, in the format that the decoder gives, most often I420 or NV12. Nothing is copied after a
    /// software decoder.
    #[default]
    System,
    /// In whatever memory the decoder gives, as that of the GPU; see [`VideoFrame::caps`](super::VideoFrame::caps).
    Native,
    /// Converted to this format, in system memory.
    Format(gst_video::VideoFormat),
}

/// Where the sound of a broadcast goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AudioBackend(pub(super) Backend);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Backend {
    #[default]
    Default,
    Device(String),
    Samples,
    None,
}

impl AudioBackend {
    /// To an output that is described as `gst-launch-1.0` does it, like `pulsesink device=headset` or
    /// `alsasink device=hw:1`.
    ///
    /// [`AudioBackend::default()`] is the system's default output. A sink that can follow the clock by resampling
    /// (`slave-method`) is set to do so.
    pub fn device(description: impl Into<String>) -> Self {
        Self(Backend::Device(description.into()))
    }

    /// To the program: see [`AudioTrack::next_samples`](super::AudioTrack::next_samples).
    pub fn samples() -> Self {
        Self(Backend::Samples)
    }

    /// Nowhere: it is not even received.
    pub fn none() -> Self {
        Self(Backend::None)
    }
}
