#!/bin/sh
# Publishes the screen of an X11 session. -v prints the ticket, in the line that ends `ticket = …`.
#
#   examples/shell/publish-screen.sh
#
# Ctrl-C stops it, and viewers wait; with secret-key-location=FILE they find it again. Words behind the
# program's name are properties of irohlivesink.
set -eu

screen=${SCREEN:-ximagesrc use-damage=false show-pointer=true}

# shellcheck disable=SC2086 # what comes from outside are several words
exec gst-launch-1.0 -v \
    $screen ! videorate ! video/x-raw,framerate=30/1 ! videoconvert ! video/x-raw,format=I420 \
    ! queue leaky=downstream max-size-buffers=2 \
    ! x264enc tune=zerolatency speed-preset=veryfast bitrate=4000 key-int-max=60 \
    ! irohlivesink name=screen "$@"
