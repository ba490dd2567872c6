#!/bin/sh
# Publishes the camera and the microphone of a Linux machine. -v prints the ticket, in the line that ends `ticket = …`.
#
#   examples/shell/publish-camera.sh
#   CAMERA="v4l2src device=/dev/video2" examples/shell/publish-camera.sh relay-mode=disabled
#
# Ctrl-C stops it, and viewers wait; with secret-key-location=FILE they find it again. Words behind the
# program's name are properties of irohlivesink.
set -eu

camera=${CAMERA:-v4l2src}
microphone=${MICROPHONE:-autoaudiosrc}

# The leaky queue drops pictures when the encoder does not keep up, so that what viewers see never grows old.
# shellcheck disable=SC2086 # what comes from outside are several words
exec gst-launch-1.0 -v \
    $camera ! decodebin3 ! videoconvert ! video/x-raw,format=I420 ! queue leaky=downstream max-size-buffers=2 \
    ! x264enc tune=zerolatency speed-preset=veryfast bitrate=2500 key-int-max=60 \
    ! irohlivesink name=camera "$@" \
    $microphone ! audioconvert ! audioresample ! queue ! opusenc ! camera.audio_0
