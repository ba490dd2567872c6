#!/usr/bin/env bash
# Runs the README's command lines as they stand there, and looks whether media flows.
set -u
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
failed=0
readme=$PWD/README.md
export GST_REGISTRY=$work/registry.bin
# Where there is no screen and no sound card.
export GST_PLUGIN_FEATURE_RANK=fakevideosink:MAX,fakeaudiosink:MAX
unset IROH_SECRET

# The line of the README that begins so and contains that.
line() { grep -F -- "$1" "$readme" | grep -F -- "$2" | head -n 1; }

report() { # NAME RESULT
    if [ "$2" = 0 ]; then echo "ok      $1"; else echo "FAILED  $1"; failed=1; fi
}

# Starts a publisher and waits for the line with its ticket.
publish() { # COMMAND
    (cd "$work" && exec bash -c "exec $1") >"$work/publisher.log" 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do
        T=$(sed -n 's/.*: ticket = //p' "$work/publisher.log" | tail -n 1)
        [ -n "$T" ] && break
        sleep 0.2
    done
    export T
    [ -n "$T" ]
}

# Runs a viewer for a while: decoded buffers must have come out of it.
watch() { # COMMAND
    (cd "$work" && GST_DEBUG=irohlivesrc:4 GST_DEBUG_NO_COLOR=1 timeout -s INT 12 bash -c "exec $1") >"$work/viewer.log" 2>&1
    grep -q "status: Connected" "$work/viewer.log" && ! grep -q "^ERROR" "$work/viewer.log"
}

gst-launch-1.0 -q videotestsrc num-buffers=1800 ! video/x-raw,width=320,height=180,framerate=30/1 \
    ! x264enc speed-preset=ultrafast key-int-max=60 ! h264parse ! queue ! mp4mux name=m ! filesink location="$work/movie.mp4" \
    audiotestsrc num-buffers=2812 samplesperbuffer=1024 ! "audio/x-raw,rate=48000,channels=6,channel-mask=(bitmask)0x3f" \
    ! audioconvert ! avenc_aac ! aacparse ! queue ! m. || { echo "FAILED  making a movie"; exit 1; }

command=$(line "gst-launch-1.0 -v videotestsrc" "irohlivesink name=stream")
publish "$command"; report "$command" $?
for what in "s.video_0 ! avdec_h264" "playbin3 uri"; do
    command=$(line "gst-launch-1.0" "$what")
    watch "$command"; report "$command" $?
done

command=$(line "gst-launch-1.0 -v filesrc" "irohlivesink name=movie")
publish "$command"; report "$command" $?
for what in "s.audio_0 ! queue ! decodebin3" 'gst-play-1.0 "$T"'; do
    command=$(line "gst-" "$what")
    watch "$command"; report "$command" $?
done
exit $failed
