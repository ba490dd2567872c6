//! How `irohlivesink` behaves: in the states of a pipeline, towards the application, and towards what is upstream.

mod application;
mod files;
mod streams;

/// Live H.264 with a key frame every half second.
const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
                     x264enc tune=zerolatency key-int-max=15";
