#!/bin/sh
# Records a broadcast of H.264 and Opus into a Matroska file, as it is, without decoding or encoding anything.
#
#   examples/shell/record.sh "$T" recording.mkv
#
# Ctrl-C ends it, and leaves a whole file. Words behind the file's name are properties of irohlivesrc.
set -eu

ticket=${1:?the ticket} file=${2:?a file name}
shift 2

exec gst-launch-1.0 -e irohlivesrc ticket="$ticket" name=s "$@" \
    s.video_0 ! queue ! h264parse ! matroskamux name=file ! filesink location="$file" \
    s.audio_0 ! queue ! opusparse ! file.
