#!/usr/bin/env python3
"""Publishes a test card and a tone, prints the ticket, and tells of viewers that come and go.

    python3 examples/python/publish.py
    python3 examples/python/publish.py irohlivesink relay-mode=disabled address-lookup=none

Words behind the program's name replace `irohlivesink`, and may give it properties.
Needs, on Debian and Ubuntu: apt install python3-gi gir1.2-gstreamer-1.0
"""

import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

Gst.init(None)
sink = " ".join(sys.argv[1:]) or "irohlivesink"
pipeline = Gst.parse_launch(
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=640,height=360,framerate=30/1"
    " ! timeoverlay ! queue leaky=downstream max-size-buffers=2"
    f" ! x264enc tune=zerolatency key-int-max=60 ! {sink} name=stream"
    " audiotestsrc is-live=true volume=0.1 ! audioconvert ! queue ! opusenc ! stream.audio_0"
)
stream = pipeline.get_by_name("stream")
stream.connect("subscriber-added", lambda _, who: print("A viewer came:", who[:10], flush=True))
stream.connect("subscriber-removed", lambda _, who: print("A viewer left:", who[:10], flush=True))

loop = GLib.MainLoop()
failed = False


def on_message(_, message):
    global failed
    if message.type == Gst.MessageType.ELEMENT and message.has_name("irohlive-ticket"):
        print(message.get_structure().get_string("ticket"), flush=True)
    elif message.type == Gst.MessageType.WARNING:
        print(message.parse_warning()[0].message, file=sys.stderr)
    elif message.type == Gst.MessageType.ERROR:
        print(message.parse_error()[0].message, file=sys.stderr)
        failed = True
        loop.quit()
    elif message.type == Gst.MessageType.EOS:
        loop.quit()


bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", on_message)

# Ctrl-C stops it, and viewers wait for it to be back: with the property secret-key-location they find it by the same
# ticket. To tell them that it is over, send EOS first: pipeline.send_event(Gst.Event.new_eos()).
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, loop.quit)

pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
sys.exit(failed)
