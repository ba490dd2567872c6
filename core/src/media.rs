//! Raw media on GStreamer: from a camera to a broadcast, from a broadcast to a window and a loudspeaker.
//!
//! Capture, encoders, decoders and rendering are GStreamer's elements; what is here assembles them.

pub mod caps;
mod capture;
mod codec;
mod element;
pub mod encode;
mod encoder;
mod init;
mod ladder;
pub mod playback;
mod preset;
mod publish;
pub mod receive;
pub mod sample;

pub use capture::{
    AudioPusher, AudioSource, MediaSource, PushError, SourceError, VideoPusher, VideoSource,
};
pub use codec::{AudioCodec, VideoCodec};
pub use encode::{
    CapturedFrame, Preview, PublishMediaError, RenditionInfo, SetSourceError, SourceStatus,
};
pub use encoder::{AudioEncoder, EncoderError, VideoEncoder};
pub use init::{InitError, init};
pub use playback::{
    AudioBackend, AudioSamples, AudioTrack, Decoders, DefaultDecoders, MapError, MediaError,
    MediaTracks, PlaybackConfig, PlaybackError, SoftwareDecoders, SubscribeMediaError,
    Synchronisation, TrackCounts, VideoFrame, VideoOutput, VideoTrack,
};
pub use preset::{AudioPreset, VideoPreset};
pub use publish::{LocalAudio, LocalVideo};
