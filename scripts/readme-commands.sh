#!/usr/bin/env bash
# Runs the README's command lines exactly as they stand there, and looks whether media flows.
#
# It finds them by what stands behind ```sh at the head of their code blocks, which a reader of the README does not see:
#   run            runs for itself: succeeds, or prints frame rates until it is stopped
#   publish NAME   prints a ticket
#   watch NAME     with that publisher's ticket in $T, renders frames of all of its tracks
#   record NAME    with that publisher's ticket in $T, leaves a file, the last word of the command, that can be played
# What has to be different on a machine without a screen is done through the environment.
# shellcheck disable=SC2317 # several functions are called by the name in a variable
set -euo pipefail
set -m # every job gets a process group, and can be ended as Ctrl-C does it
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository=$PWD
work=$(mktemp -d)
failed=0
group='' # the process group of the publisher that runs, if any

# How many tracks each publisher of the README has.
declare -A tracks=([test-card]=2 [stream]=1 [movie]=2 [python]=2 [local]=1) publishers=() seen=()

export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/gstreamer-1.0}
export GST_REGISTRY=$work/registry.bin GST_DEBUG_NO_COLOR=1
# The automatic sinks shall not find a screen or a loudspeaker. (Some sinks crash where there is none.)
export GST_PLUGIN_FEATURE_RANK=fakevideosink:MAX,fakeaudiosink:MAX
for sink in aasink cacasink dfbvideosink fbdevsink glimagesink gtkwaylandsink kmssink vulkansink waylandsink ximagesink \
    xvimagesink; do
    GST_PLUGIN_FEATURE_RANK+=,$sink:NONE
done
unset DISPLAY WAYLAND_DISPLAY IROH_SECRET T
# The system's Python has the bindings, whatever other one is first in PATH.
python3 -c 'import gi' 2>/dev/null || PATH=/usr/bin:$PATH

stop() { # GROUP, as Ctrl-C; what does not heed it is ended by force
    kill -INT -- "-$1" || true
    for _ in {1..100}; do
        if is_over "$1"; then break; fi
        sleep 0.1
    done
    kill -KILL -- "-$1" || true
    wait "$1" || true
} 2>/dev/null # where bash would say that a job was ended

cleanup() {
    [ -z "$group" ] || stop "$group"
    rm -rf "$work"
}
trap cleanup EXIT

# Where a command is at home: GStreamer's tools with the movie, all others in the repository.
home() {
    case $1 in
    gst-*) echo "$work" ;;
    *) echo "$repository" ;;
    esac
}

# For how many seconds something may come out of a command: `make` may have to build first.
patience() {
    case $1 in
    make*) echo 1800 ;;
    *) echo 60 ;;
    esac
}

report() { # VERDICT COMMAND [LOG]
    printf '%-7s %s\n' "$1" "$2"
    [ "$1" = FAILED ] || return 0
    failed=1
    tail -n 20 "$3" | cut -c 1-400 | sed 's/^/        /'
}

# within SECONDS GROUP CONDITION...   waits for it, for so long, or until the processes are gone
within() {
    local deadline=$((SECONDS + $1)) job=$2
    shift 2
    until "$@"; do
        if [ $SECONDS -ge $deadline ] || is_over "$job"; then
            "$@" # may have become true at the last moment
            return
        fi
        sleep 0.2
    done
}

has_ticket() { grep -q 'iroh-live:' "$work/publisher.log"; }
shows_frames() { [ "$(grep -c ' fps ' "$work/run.log")" -ge 3 ]; }
is_over() { ! kill -0 -- "-$1" 2>/dev/null; }

# The tracks of which frames were rendered: every sink logs each frame, in a thread of its own.
rendered() {
    cat "$work"/sinks.* 2>/dev/null |
        awk '/rendering object/ { frames[$2 $3]++ } END { for (sink in frames) n += frames[sink] >= 30; print n + 0 }'
}
shows_tracks() { [ "$(rendered)" -ge "$1" ]; }

run() { # COMMAND
    : >"$work/run.log" # not that of the run before, which the job may replace a moment later only
    (cd "$(home "$1")" && exec bash -c "$1") >"$work/run.log" 2>&1 </dev/null &
    local job=$! verdict=FAILED
    if within "$(patience "$1")" "$job" shows_frames || { is_over "$job" && wait "$job" 2>/dev/null; }; then verdict=ok; fi
    stop "$job"
    report "$verdict" "$1" "$work/run.log"
}

# Starts the publisher of that name and puts its ticket into T.
publish() { # NAME
    local command=${publishers[$1]} verdict=ok
    : >"$work/publisher.log"
    (cd "$(home "$command")" && exec bash -c "$command") >"$work/publisher.log" 2>&1 </dev/null &
    group=$!
    within "$(patience "$command")" "$group" has_ticket || verdict=FAILED
    T=$(grep -o 'iroh-live:[^ "]*' "$work/publisher.log" | head -n 1 || true)
    export T
    if [ -z "${seen[$1]:-}" ]; then report "$verdict" "$command" "$work/publisher.log"; fi
    seen[$1]=yes
}

withdraw() {
    stop "$group"
    group=''
}

watch() { # NAME COMMAND
    local verdict=FAILED
    publish "$1"
    rm -f "$work"/sinks.*
    (cd "$(home "$2")" && GST_DEBUG=basesink:5 GST_DEBUG_FILE=$work/sinks.%p exec bash -c "$2") >"$work/viewer.log" 2>&1 </dev/null &
    local job=$!
    if within "$(patience "$2")" "$job" shows_tracks "${tracks[$1]}"; then verdict=ok; fi
    echo "(frames of $(rendered) tracks were rendered; ${tracks[$1]} were published)" >>"$work/viewer.log"
    stop "$job"
    withdraw
    report "$verdict" "$2" "$work/viewer.log"
}

record() { # NAME COMMAND
    local verdict=FAILED file=${2##* }
    publish "$1"
    rm -f "$file"
    (cd "$(home "$2")" && exec bash -c "$2") >"$work/viewer.log" 2>&1 </dev/null &
    local job=$!
    sleep 6
    stop "$job"
    withdraw
    if [ "$(gst-discoverer-1.0 "$file" 2>>"$work/viewer.log" | grep -cE '(video|audio) #')" = "${tracks[$1]}" ]; then
        verdict=ok
    fi
    rm -f "$file"
    report "$verdict" "$2" "$work/viewer.log"
}

# H.264 with B-frames, and 5.1 AAC.
gst-launch-1.0 -q videotestsrc num-buffers=3600 ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 \
    ! x264enc speed-preset=ultrafast bframes=2 key-int-max=60 ! h264parse ! queue ! mp4mux name=m \
    ! filesink location="$work/movie.mp4" \
    audiotestsrc num-buffers=5625 samplesperbuffer=1024 ! "audio/x-raw,rate=48000,channels=6,channel-mask=(bitmask)0x3f" \
    ! avenc_aac ! aacparse ! queue ! m. >"$work/movie.log" 2>&1 || report FAILED 'making a movie' "$work/movie.log"

# Each as: kind, name (or -), command.
mapfile -t commands < <(awk '
    /^```sh [a-z]/ { kind = $2; name = $3 == "" ? "-" : $3; next }
    /^```/ { kind = "" }
    kind != "" && NF { print kind, name, $0 }' README.md)
[ ${#commands[@]} -ge 14 ] || { echo "FAILED  only ${#commands[@]} command lines are found in the README"; failed=1; }

for entry in "${commands[@]}"; do
    read -r kind name command <<<"$entry"
    case $kind in
    publish) publishers[$name]=$command ;;
    run) run "$command" ;;
    watch | record) "$kind" "$name" "$command" ;;
    *) echo "FAILED  the README has a code block of unknown kind: $kind" && failed=1 ;;
    esac
done
for name in "${!publishers[@]}"; do
    [ -n "${seen[$name]:-}" ] || { echo "FAILED  nothing in the README watches $name" && failed=1; }
done
exit $failed
