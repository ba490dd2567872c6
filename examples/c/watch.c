/* Watches a ticket with GStreamer's own player: playbin3 takes a ticket as it takes any other URI.
 *
 *   cc examples/c/watch.c -o watch $(pkg-config --cflags --libs gstreamer-1.0)
 *   ./watch "$T"
 *   ./watch "$T" relay-mode disabled        names and values of properties of irohlivesrc may follow
 */
#include <gst/gst.h>

static char **properties; /* name, value, name, value, …, NULL */

/* The player has made the source of the URI, which is where properties are set. */
static void
on_source (GstElement *player, GstElement *source, gpointer data)
{
  (void) player, (void) data;
  for (char **property = properties; property[0] && property[1]; property += 2)
    gst_util_set_object_arg (G_OBJECT (source), property[0], property[1]);
  gst_element_add_property_notify_watch (source, "status", TRUE);
}

static void
print_status (GstMessage *message)
{
  const GValue *value;
  gst_message_parse_property_notify (message, NULL, NULL, &value);
  char *text = gst_value_serialize (value);
  g_print ("status: %s\n", text);
  g_free (text);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  if (argc < 2) {
    g_printerr ("watch TICKET [PROPERTY VALUE]...\n");
    return 2;
  }
  properties = argv + 2;

  GstElement *player = gst_element_factory_make ("playbin3", NULL);
  if (!player) {
    g_printerr ("playbin3 is missing: apt install gstreamer1.0-plugins-base\n");
    return 1;
  }
  g_object_set (player, "uri", argv[1], NULL);
  g_signal_connect (player, "source-setup", G_CALLBACK (on_source), NULL);
  gst_element_set_state (player, GST_STATE_PLAYING);

  GstBus *bus = gst_element_get_bus (player);
  gboolean done = FALSE, failed = FALSE;
  while (!done) {
    GstMessage *message = gst_bus_timed_pop (bus, GST_CLOCK_TIME_NONE);
    GError *error = NULL;
    switch (GST_MESSAGE_TYPE (message)) {
      case GST_MESSAGE_ERROR:
        gst_message_parse_error (message, &error, NULL);
        done = failed = TRUE;
        break;
      case GST_MESSAGE_WARNING:
        gst_message_parse_warning (message, &error, NULL);
        break;
      case GST_MESSAGE_EOS:
        done = TRUE;
        break;
      case GST_MESSAGE_LATENCY:
        gst_bin_recalculate_latency (GST_BIN (player));
        break;
      case GST_MESSAGE_PROPERTY_NOTIFY:
        print_status (message);
        break;
      default:
        break;
    }
    if (error) {
      g_printerr ("%s\n", error->message);
      g_error_free (error);
    }
    gst_message_unref (message);
  }

  gst_element_set_state (player, GST_STATE_NULL);
  gst_object_unref (bus);
  gst_object_unref (player);
  return failed;
}
