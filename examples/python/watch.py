#!/usr/bin/env python3
"""Watches a ticket, and prints once a second what the element measures.

    python3 examples/python/watch.py "$T"
    python3 examples/python/watch.py "$T" relay-mode=disabled address-lookup=none

Words behind the ticket are properties of irohlivesrc.
Needs, on Debian and Ubuntu: apt install python3-gi gir1.2-gstreamer-1.0
"""

import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

if len(sys.argv) < 2:
    sys.exit(__doc__)

Gst.init(None)
pipeline = Gst.Pipeline()
source = Gst.parse_launch(" ".join(["irohlivesrc", *sys.argv[2:]]))
source.set_property("ticket", sys.argv[1])
pipeline.add(source)

BEHIND = {
    "video": "queue name=input ! decodebin3 ! videoconvert ! autovideosink",
    "audio": "queue name=input ! decodebin3 ! audioconvert ! audioresample ! autoaudiosink",
}


def on_pad(_, pad):
    """A track of the broadcast is there: put a decoder and a sink behind it."""
    branch = Gst.parse_bin_from_description(BEHIND[pad.get_name().split("_")[0]], False)
    branch.add_pad(Gst.GhostPad.new("sink", branch.get_by_name("input").get_static_pad("sink")))
    pipeline.add(branch)
    branch.sync_state_with_parent()
    pad.link(branch.get_static_pad("sink"))


source.connect("pad-added", on_pad)
source.connect("notify::status", lambda *_: print(source.get_property("status").value_nick, flush=True))

loop = GLib.MainLoop()
failed = False


def on_message(_, message):
    global failed
    if message.type == Gst.MessageType.LATENCY:
        pipeline.recalculate_latency()
    elif message.type == Gst.MessageType.WARNING:
        print(message.parse_warning()[0].message, file=sys.stderr)
    elif message.type == Gst.MessageType.ERROR:
        print(message.parse_error()[0].message, file=sys.stderr)
        failed = True
        loop.quit()
    elif message.type == Gst.MessageType.EOS:
        loop.quit()


def on_second():
    stats = source.get_property("stats")
    ok, rtt = stats.get_uint64("round-trip-time")
    ok_bytes, received = stats.get_uint64("bytes-received")
    if ok and ok_bytes:
        print(f"{received / 1e6:.1f} MB received, round trip {rtt / 1e6:.1f} ms, {stats.get_string('path-type')}", flush=True)
    return True


bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", on_message)
GLib.timeout_add_seconds(1, on_second)
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, loop.quit)

if pipeline.set_state(Gst.State.PLAYING) == Gst.StateChangeReturn.FAILURE:
    # The reason, for example a mistyped ticket, waits on the bus.
    GLib.timeout_add(1000, loop.quit)
    failed = True
loop.run()
pipeline.set_state(Gst.State.NULL)
sys.exit(failed)
