//! Up and down through the states, again and again: nothing may be left behind. Alone in its process, as it counts what
//! the whole process has.

use std::fs;

use gst::prelude::*;
use iroh_live_tests::{Publisher, Viewer, eventually, start};

const STREAM: &str = "SINK \
    videotestsrc is-live=true ! video/x-raw,width=96,height=64,framerate=30/1 ! \
    x264enc tune=zerolatency key-int-max=10 ! stream.video_0 \
    audiotestsrc is-live=true ! opusenc ! stream.audio_0";

/// How many threads and open files the process has, and how many bytes it has been given and has not given back. Not how
/// many the system counts for it: the allocator keeps what it got for each of its arenas, more on a machine with more
/// cores.
fn held() -> (usize, usize, usize) {
    let count = |folder| fs::read_dir(folder).expect("Linux has it").count();
    // SAFETY: it only reads the allocator's books, which it locks meanwhile.
    let memory = unsafe { libc::mallinfo2() };
    (
        count("/proc/self/task"),
        count("/proc/self/fd"),
        memory.uordblks + memory.hblkhd,
    )
}

/// A publisher and a viewer are gone when the program lets go of them, with all that they were made of.
fn whole_life() {
    let publisher = Publisher::new(STREAM);
    publisher.pipe.play();
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.wait_frames("audio_0", 5);
    let elements = [&publisher.sink, &viewer.src];
    let weak: Vec<_> = elements
        .iter()
        .flat_map(|element| element.pads())
        .map(|pad| pad.upcast::<gst::Object>())
        .chain(elements.map(|element| element.clone().upcast()))
        .map(|object| (object.name(), object.downgrade()))
        .collect();
    assert_eq!(weak.len(), 6, "two pads each, and the elements");
    drop((viewer, publisher));
    eventually("the elements and their pads to be freed", || {
        let left: Vec<_> = weak
            .iter()
            .filter(|(_, object)| object.upgrade().is_some())
            .map(|(name, _)| name)
            .collect();
        left.is_empty().then_some(())
    });
}

/// Two publishers, each watched by a viewer, up and down.
fn round(publishers: &[Publisher], viewers: &[Viewer]) {
    for (publisher, viewer) in publishers.iter().zip(viewers) {
        publisher.pipe.play();
        viewer.src.set_property("ticket", publisher.ticket());
    }
    for viewer in viewers {
        let seen: usize = viewer.pads().len();
        viewer.pipe.play();
        viewer.pipe.wait("new pads with media", || {
            let fresh = viewer.pads().split_off(seen);
            let plays = |kind: &str| {
                fresh
                    .iter()
                    .any(|pad| pad.name == kind && pad.frames().count() >= 5)
            };
            (plays("video_0") && plays("audio_0")).then_some(())
        });
    }
    // Not always in the same order: whoever is left behind has to cope.
    let first = viewers[0].pads().len().is_multiple_of(4);
    if first {
        viewers.iter().for_each(|viewer| viewer.pipe.stop());
    }
    publishers
        .iter()
        .for_each(|publisher| publisher.pipe.stop());
    viewers.iter().for_each(|viewer| viewer.pipe.stop());
    publishers
        .iter()
        .for_each(|publisher| publisher.pipe.forget());
    for viewer in viewers {
        assert_eq!(
            viewer.src.num_pads(),
            0,
            "pads are left in NULL: {:?}, {:?}",
            viewer.src.pads(),
            viewer.signals()
        );
        viewer.forget();
    }
}

#[test]
fn nothing_is_left_behind() {
    let _test = start();
    for _ in 0..3 {
        whole_life();
    }
    let publishers = [0, 1].map(|_| Publisher::new(STREAM));
    let viewers = [0, 1].map(|_| Viewer::new("", "", |_| Some(String::new())));
    for _ in 0..10 {
        round(&publishers, &viewers);
    }
    // By now the pools of threads and memory are as large as they get.
    let (threads, files, memory) = held();
    for _ in 0..20 {
        round(&publishers, &viewers);
    }
    eventually("as few threads and open files as before", || {
        let (now_threads, now_files, _) = held();
        (now_threads <= threads && now_files <= files).then_some(())
    });
    let (_, _, now) = held();
    // A tenth of it is what pools and lists grow by; a pipeline or a broadcast's cache kept from each round is more.
    assert!(
        now < memory + 2_000_000,
        "memory grew from {memory} to {now} bytes in twenty rounds"
    );
}
