//! Which decoder plays a stream: those that are installed, in order, and when one is given up for the next.

use std::time::Duration;

use gst::prelude::*;

use crate::media::caps::Codec;

/// Chooses the decoders for a stream.
///
/// Implement it to use your own: see [`DefaultDecoders`] for what a program gets otherwise.
pub trait Decoders: Send + Sync + 'static {
    /// What decodes a stream with these caps, the first choice first.
    ///
    /// Each is a description as `gst-launch-1.0` takes it, of elements with one pad for what is encoded and one for what
    /// is decoded, like `avdec_h264 output-corrupt=false` or `h264parse ! v4l2h264dec`. One that is not installed, does
    /// not start or fails on the stream is passed over for the next. `hardware` is what
    /// [`PlaybackConfig::hardware`](super::PlaybackConfig::hardware) says.
    fn candidates(caps: &gst::Caps, hardware: bool) -> Vec<String>;
}

/// The decoders that are installed: hardware before software, and then by GStreamer's rank, set for low latency.
///
/// The environment variable `GST_PLUGIN_FEATURE_RANK` changes the order, as it does for all of GStreamer.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultDecoders;

/// The software decoders that are installed, by GStreamer's rank, set for low latency.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoftwareDecoders;

impl Decoders for DefaultDecoders {
    fn candidates(caps: &gst::Caps, hardware: bool) -> Vec<String> {
        installed(caps, hardware)
    }
}

impl Decoders for SoftwareDecoders {
    fn candidates(caps: &gst::Caps, _hardware: bool) -> Vec<String> {
        installed(caps, false)
    }
}

fn installed(caps: &gst::Caps, hardware: bool) -> Vec<String> {
    let factories = gst::ElementFactory::factories_with_type(
        gst::ElementFactoryType::DECODER,
        gst::Rank::MARGINAL,
    );
    // Nothing here has an alpha channel: without this, decoders that need one would be among those that might do.
    let opaque = |mut caps: gst::Caps| {
        caps.make_mut().set("codec-alpha", false);
        caps
    };
    let stream = opaque(caps.clone());
    // What a parser can make of the stream: not every decoder takes H.264 as MP4 files have it, or without its size.
    let parser = Codec::of(caps).ok().and_then(Codec::parser);
    let parsed = parser
        .and(caps.structure(0))
        .map(|structure| opaque(gst::Caps::new_empty_simple(structure.name())));
    let mut found: Vec<_> = factories
        .iter()
        .filter_map(|factory| {
            let in_hardware = factory.has_type(gst::ElementFactoryType::HARDWARE);
            if in_hardware && !hardware {
                return None;
            }
            let parser = match &parsed {
                _ if factory.can_sink_all_caps(&stream) => None,
                None if factory.can_sink_any_caps(&stream) => None,
                Some(parsed) if factory.can_sink_any_caps(parsed) => parser,
                _ => return None,
            };
            Some((in_hardware, factory, parser))
        })
        .collect();
    found.sort_by(|(a_hardware, a, _), (b_hardware, b, _)| {
        b_hardware
            .cmp(a_hardware)
            .then_with(|| b.rank().cmp(&a.rank()))
            .then_with(|| a.name().cmp(&b.name()))
    });
    found
        .into_iter()
        .map(|(_, factory, parser)| {
            let decoder = with_settings(factory);
            match parser {
                Some(parser) => format!("{} ! {decoder}", parser.element),
                None => decoder,
            }
        })
        .collect()
}

/// Settings for low latency and for streams with holes: the start of the factory's name, the property, its value.
///
/// A property that the installed version does not have is left out.
const SETTINGS: &[(&str, &str, &str)] = &[
    // Errors are counted here, where the decoder is made anew, not in the element.
    ("", "max-errors", "-1"),
    // Threads that each decode a frame hold back as many frames as there are threads.
    ("avdec_h26", "thread-type", "slice"),
    ("avdec_mpeg", "thread-type", "slice"),
    ("avdec_", "output-corrupt", "false"),
    ("dav1ddec", "max-frame-delay", "1"),
    ("nv", "max-display-delay", "0"),
    ("vaapi", "low-latency", "true"),
    ("opusdec", "plc", "true"),
    ("avdec_aac", "plc", "true"),
];

/// The factory's name with the [`SETTINGS`] that it takes.
fn with_settings(factory: &gst::ElementFactory) -> String {
    let mut description = factory.name().to_string();
    let Ok(loaded) = factory.clone().load() else {
        return description;
    };
    let Ok(loaded) = loaded.downcast::<gst::ElementFactory>() else {
        return description;
    };
    let class = gst::glib::Class::<gst::glib::Object>::from_type(loaded.element_type());
    let Some(class) = class else {
        return description;
    };
    for (start, property, value) in SETTINGS {
        if factory.name().starts_with(start)
            && class
                .find_property(property)
                .is_some_and(|spec| spec.flags().contains(gst::glib::ParamFlags::WRITABLE))
        {
            description.push_str(&format!(" {property}={value}"));
        }
    }
    description
}

/// What the codec is called, and the package of Debian and Ubuntu that decodes it.
pub(super) fn package(caps: &gst::CapsRef) -> (&'static str, &'static str) {
    match Codec::of(caps) {
        Ok(codec) => (codec.title(), codec.decoder_package()),
        Err(_) => ("this codec", "gstreamer1.0-plugins-bad"),
    }
}

/// Which candidate decodes, and when it is given up. Time is passed in, from any fixed point.
///
/// A decoder that fails is made anew and goes on at the next key frame. One that fails without having given a single
/// picture makes room for the next candidate; one that worked is tried again, as it was the stream that was damaged.
#[derive(Debug)]
pub(super) struct Attempts {
    candidates: usize,
    current: usize,
    /// Failures since the last picture.
    failures: usize,
    /// Whether this stream was ever decoded.
    worked: bool,
    /// What came out of the decoder that is there now.
    decoded: u64,
    /// What had gone in when something came out last, and when that was.
    mark: Option<(u64, Duration)>,
}

/// How many times all candidates are tried on a stream that none has given a picture of.
const ROUNDS: usize = 3;

/// How many failures end a stream that was decoded before.
const PATIENCE: usize = 30;

/// A decoder that has been given so many frames for so long, and gave nothing, has failed.
const STALL: (u64, Duration) = (60, Duration::from_secs(3));

impl Attempts {
    /// With so many candidates, one at least.
    pub(super) fn new(candidates: usize) -> Self {
        Self {
            candidates,
            current: 0,
            failures: 0,
            worked: false,
            decoded: 0,
            mark: None,
        }
    }

    /// The candidate to use now.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// A decoder was made. What was counted of the one before says nothing of it, whatever that one was taken out for.
    pub(super) fn begin(&mut self) {
        self.decoded = 0;
        self.mark = None;
    }

    /// Takes note of what went into the decoder and came out of it since it was made. Returns whether it is stuck.
    pub(super) fn progress(&mut self, fed: u64, decoded: u64, now: Duration) -> bool {
        if decoded > self.decoded {
            self.decoded = decoded;
            self.failures = 0;
            self.worked = true;
            self.mark = None;
        }
        let (at, since) = *self.mark.get_or_insert((fed, now));
        if at == fed {
            // Nothing went in.
            self.mark = Some((fed, now));
        }
        fed.saturating_sub(at) >= STALL.0 && now.saturating_sub(since) >= STALL.1
    }

    /// The decoder has failed, having given so many pictures, or could not be made. Returns whether to go on, with
    /// [`current`](Self::current).
    pub(super) fn failed(&mut self, decoded: u64) -> bool {
        if decoded > self.decoded {
            self.failures = 0;
            self.worked = true;
        }
        if decoded == 0 {
            self.current = (self.current + 1) % self.candidates.max(1);
        }
        self.begin();
        self.failures += 1;
        let rounds = ROUNDS * self.candidates;
        let limit = if self.worked {
            PATIENCE.max(rounds)
        } else {
            rounds
        };
        self.failures < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_decoder_that_never_worked_makes_room_for_the_next() {
        let mut attempts = Attempts::new(2);
        let mut used = vec![attempts.current()];
        while attempts.failed(0) {
            used.push(attempts.current());
        }
        assert_eq!(used, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_decoder_that_worked_is_tried_again() {
        let mut attempts = Attempts::new(2);
        assert!(attempts.failed(0));
        for _ in 0..1000 {
            assert!(attempts.failed(7));
            assert_eq!(attempts.current(), 1);
        }
        let more = std::iter::repeat_with(|| attempts.failed(0)).take_while(|go_on| *go_on);
        assert_eq!(more.count(), PATIENCE - 2);
    }

    #[test]
    fn a_picture_forgives_the_failures_before_it() {
        let mut attempts = Attempts::new(1);
        for _ in 0..10 {
            assert!(attempts.failed(0));
            assert!(attempts.failed(0));
            assert!(!attempts.progress(1, 1, secs(0)));
        }
    }

    #[test]
    fn frames_in_and_no_pictures_out_is_a_stall() {
        let mut attempts = Attempts::new(1);
        assert!(!attempts.progress(30, 30, secs(0)));
        // Nothing is sent: nothing can come out.
        assert!(!attempts.progress(30, 30, secs(100)));
        assert!(!attempts.progress(60, 30, secs(101)));
        assert!(!attempts.progress(80, 30, secs(102)));
        assert!(attempts.progress(120, 30, secs(104)));
        // One picture, and the time begins anew.
        assert!(!attempts.progress(120, 31, secs(104)));
        assert!(!attempts.progress(179, 31, secs(109)));
    }

    #[test]
    fn a_decoder_that_is_made_anew_for_another_reason_is_not_measured_by_the_one_before() {
        let mut attempts = Attempts::new(1);
        assert!(!attempts.progress(1000, 900, secs(0)));
        assert!(!attempts.progress(1010, 900, secs(1)));
        // The audio device is unplugged and comes back: that is no failure of the decoder.
        attempts.begin();
        for second in 2..30 {
            let n = (second - 2) * 50;
            assert!(!attempts.progress(n, n, secs(second)), "{second}");
        }
    }

    #[test]
    fn settings_are_those_that_the_decoder_has() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-vp8").build();
        let found = SoftwareDecoders::candidates(&caps, true);
        assert!(
            found.iter().any(|found| found.starts_with("vp8dec")),
            "{found:?}"
        );
        assert!(
            !found.iter().any(|found| found.contains("alpha")),
            "{found:?}"
        );
        for description in found {
            gst::parse::bin_from_description(&description, true).unwrap();
        }
        let unknown = gst::Caps::builder("video/x-nothing").build();
        assert!(DefaultDecoders::candidates(&unknown, true).is_empty());
    }

    #[test]
    fn a_stream_that_a_decoder_does_not_take_gets_a_parser() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .build();
        for description in SoftwareDecoders::candidates(&caps, false) {
            let parsed = description.starts_with("h264parse ! ");
            assert_eq!(parsed, description.contains("openh264dec"), "{description}");
        }
    }
}
