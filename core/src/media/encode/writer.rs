//! Encoded media on its way into a track: what it is, and its frames.

use std::time::Duration;

use crate::{
    broadcast::{
        EncodedFrame, LocalBroadcast, LocalTrack, PublishTrackError, TrackConfig, TrackReservation,
    },
    media::{
        caps::{self, Codec, Reason},
        sample,
    },
};

/// Makes a track of the buffers of an encoder or a parser, in the form of [`Codec::wire_caps`].
///
/// The track comes into being with the first key frame, which says what the stream is, and is described anew with the
/// first key frame after the caps have changed.
///
/// ```no_run
/// # use iroh_live::{LocalBroadcast, media::{caps::Codec, encode::TrackWriter, sample}};
/// # fn example(broadcast: LocalBroadcast, appsink: gst_app::AppSink) -> Result<(), Box<dyn std::error::Error>> {
/// let mut writer = TrackWriter::new(&broadcast, Codec::H264, "video");
/// while let Ok(sample) = appsink.pull_sample() {
///     let time = sample::running_time(&sample).and_then(|time| broadcast.timestamp(time, None));
///     let (Some((timestamp, moves)), Some(caps), Some(buffer)) =
///         (time, sample.caps_owned(), sample.buffer_owned())
///     else {
///         continue;
///     };
///     drop(sample);
///     if let Some(frame) = writer.frame(&caps, buffer, timestamp, moves)?
///         && let Some(track) = writer.track_mut()
///     {
///         track.write(frame)?;
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TrackWriter {
    broadcast: LocalBroadcast,
    codec: Codec,
    name: String,
    /// What the catalog says, bits a second.
    bitrate: Option<u64>,
    reservation: Option<TrackReservation>,
    track: Option<LocalTrack>,
    /// The caps that the track was described by, and how.
    described: Option<(gst::Caps, TrackConfig)>,
    /// The count of moves of the timeline at the last frame.
    moves: Option<u32>,
    discontinuity: bool,
}

/// Nothing can be published of a stream.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TrackWriterError {
    /// The memory of a buffer cannot be read.
    #[error(
        "the memory of a buffer cannot be read; put a converter or a download element before the pad"
    )]
    Memory,
    /// The caps do not say enough.
    #[error("{0}")]
    Caps(Reason),
    /// The track cannot be published.
    #[error(transparent)]
    Publish(std::sync::Arc<PublishTrackError>),
}

impl TrackWriter {
    /// A writer for a track of that name.
    pub fn new(broadcast: &LocalBroadcast, codec: Codec, name: impl Into<String>) -> Self {
        Self {
            broadcast: broadcast.tracks_only(),
            codec,
            name: name.into(),
            bitrate: None,
            reservation: None,
            track: None,
            described: None,
            moves: None,
            discontinuity: false,
        }
    }

    /// The same, with a place in the first catalog. It is given up when the track is published.
    #[must_use]
    pub fn with_reservation(mut self, reservation: Option<TrackReservation>) -> Self {
        self.reservation = reservation;
        self
    }

    /// The same, with a bit rate for the catalog, bits a second.
    #[must_use]
    pub fn with_bitrate(mut self, bitrate: u64) -> Self {
        self.bitrate = Some(bitrate);
        self
    }

    /// What the stream carries.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The track's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the catalog describes the track; none before its first key frame.
    pub fn config(&self) -> Option<&TrackConfig> {
        self.described.as_ref().map(|(_, config)| config)
    }

    /// The track; none before its first key frame.
    pub fn track(&self) -> Option<&LocalTrack> {
        self.track.as_ref()
    }

    /// The track, to write to; none before its first key frame.
    pub fn track_mut(&mut self) -> Option<&mut LocalTrack> {
        self.track.as_mut()
    }

    /// Gives up the place in the first catalog, if the track is not published yet.
    pub fn give_up_reservation(&mut self) {
        self.reservation = None;
    }

    /// Takes the track out of the catalog.
    pub fn withdraw(&mut self) {
        self.reservation = None;
        self.track = None;
        self.described = None;
    }

    /// Says that the next key frame does not continue what was before it.
    pub fn set_discontinuity(&mut self) {
        self.discontinuity = true;
    }

    /// Takes a buffer and makes a frame of it for [`track_mut`](Self::track_mut), after the track was described where that
    /// was due.
    ///
    /// `timestamp` and `moves` are those of [`LocalBroadcast::timestamp`]. None where nothing is to be sent: a header that
    /// the catalog has, an empty buffer, or a frame before the key frame that says what the stream is.
    ///
    /// # Errors
    /// See [`TrackWriterError`]. Nothing can come of the stream then, but for [`TrackWriterError::Memory`], which is about
    /// one buffer.
    pub fn frame(
        &mut self,
        frame_caps: &gst::Caps,
        buffer: gst::Buffer,
        timestamp: Duration,
        moves: u32,
    ) -> Result<Option<EncodedFrame>, TrackWriterError> {
        if self.is_empty(&buffer) {
            return Ok(None);
        }
        let keyframe = self.is_keyframe(&buffer);
        let payload = sample::payload(buffer).ok_or(TrackWriterError::Memory)?;
        let known = matches!(&self.described, Some((known, _)) if known == frame_caps);
        // What the stream is becomes known with a key frame only.
        let described = known || (keyframe && self.describe(frame_caps, &payload)?);
        if !described {
            return Ok(None);
        }
        let moved = self.moves.replace(moves).is_some_and(|last| last != moves);
        let mut frame = EncodedFrame::new(timestamp, payload, keyframe);
        frame.discontinuity = moved || (keyframe && std::mem::take(&mut self.discontinuity));
        Ok(Some(frame))
    }

    /// Whether a buffer is a frame that decoding can begin with.
    pub(super) fn is_keyframe(&self, buffer: &gst::Buffer) -> bool {
        let delta = self.codec.is_video() && buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        !delta && !self.is_empty(buffer)
    }

    /// Whether there is no frame in a buffer: nothing at all, or a header that the catalog has.
    fn is_empty(&self, buffer: &gst::Buffer) -> bool {
        buffer.size() == 0 || caps::is_header(self.codec, buffer)
    }

    /// Describes the track, publishing it where that was not done yet. Returns whether it is described.
    fn describe(
        &mut self,
        frame_caps: &gst::Caps,
        payload: &[u8],
    ) -> Result<bool, TrackWriterError> {
        let mut config = match self.codec.describe(frame_caps, payload) {
            Ok(config) => config,
            Err(reason) if self.codec.is_video() => {
                tracing::debug!(track = self.name, reason, "waiting for a key frame");
                return Ok(false);
            }
            Err(reason) => return Err(TrackWriterError::Caps(reason)),
        };
        if let Some(bitrate) = self.bitrate {
            match &mut config {
                TrackConfig::Video(config) => config.bitrate = Some(bitrate),
                TrackConfig::Audio(config) => config.bitrate = Some(bitrate),
            }
        }
        let described = match (&mut self.track, self.reservation.take()) {
            (Some(track), _) => track.set_config(config.clone()),
            (None, Some(place)) => place
                .publish(self.name.as_str(), config.clone())
                .map(|track| self.track = Some(track)),
            (None, None) => self
                .broadcast
                .publish_track(self.name.as_str(), config.clone())
                .map(|track| self.track = Some(track)),
        };
        described.map_err(|error| TrackWriterError::Publish(error.into()))?;
        tracing::info!(track = self.name, ?config, "described");
        self.described = Some((frame_caps.clone(), config));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(data: &[u8], keyframe: bool) -> gst::Buffer {
        let mut buffer = gst::Buffer::from_slice(data.to_vec());
        if !keyframe {
            let flags = buffer.get_mut().unwrap();
            flags.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        buffer
    }

    fn vp8(width: i32) -> gst::Caps {
        gst::Caps::builder("video/x-vp8")
            .field("width", width)
            .field("height", 16)
            .build()
    }

    const AT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_track_begins_and_changes_with_a_key_frame() {
        gst::init().unwrap();
        let broadcast = LocalBroadcast::new();
        let mut writer = TrackWriter::new(&broadcast, Codec::Vp8, "video").with_bitrate(1000);
        let mut frame = |caps: &gst::Caps, keyframe, moves| {
            writer
                .frame(caps, buffer(&[1], keyframe), AT, moves)
                .unwrap()
                .map(|frame| (frame.keyframe, frame.discontinuity))
        };
        assert_eq!(frame(&vp8(16), false, 0), None, "no key frame yet");
        assert_eq!(broadcast.catalog().video.renditions.len(), 0);
        assert_eq!(frame(&vp8(16), true, 0), Some((true, false)));
        assert_eq!(frame(&vp8(16), false, 0), Some((false, false)));
        assert_eq!(frame(&vp8(32), false, 0), None, "other caps, no key frame");
        assert_eq!(frame(&vp8(32), true, 0), Some((true, false)));
        assert_eq!(frame(&vp8(32), false, 1), Some((false, true)), "moved");
        assert_eq!(frame(&vp8(32), true, 1), Some((true, false)));
        writer.set_discontinuity();
        let mut next = |keyframe| {
            let frame = writer.frame(&vp8(32), buffer(&[1], keyframe), AT, 1);
            frame.unwrap().unwrap().discontinuity
        };
        assert_eq!([next(false), next(true), next(true)], [false, true, false]);
        let config = &broadcast.catalog().video.renditions["video"];
        assert_eq!(config.coded_width, Some(32));
        assert_eq!(config.bitrate, Some(1000));
        assert_eq!(
            writer.frame(&vp8(32), gst::Buffer::new(), AT, 1).unwrap(),
            None,
            "nothing in it"
        );
    }

    #[tokio::test]
    async fn sound_that_cannot_be_described_and_a_name_that_is_taken_are_errors() {
        gst::init().unwrap();
        let broadcast = LocalBroadcast::new();
        let mut writer = TrackWriter::new(&broadcast, Codec::Aac, "sound");
        let caps = gst::Caps::new_empty_simple("audio/mpeg");
        let error = writer.frame(&caps, buffer(&[1], true), AT, 0).unwrap_err();
        assert!(error.to_string().contains("put a parser"), "{error}");

        let _other = broadcast
            .publish_track(
                "video",
                crate::broadcast::VideoConfig::new(crate::broadcast::catalog::VideoCodec::VP8),
            )
            .unwrap();
        let mut writer = TrackWriter::new(&broadcast, Codec::Vp8, "video");
        let error = writer
            .frame(&vp8(16), buffer(&[1], true), AT, 0)
            .unwrap_err();
        assert!(matches!(error, TrackWriterError::Publish(_)), "{error}");
    }
}
