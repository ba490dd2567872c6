//! What the source tells of itself.

use gst::glib;
use iroh_live::transport::PathKind;

/// How far the element has come on its way to the broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstIrohLiveSrcStatus")]
pub enum Status {
    /// Not started.
    #[default]
    #[enum_value(name = "Not started", nick = "idle")]
    Idle,
    /// On the way to the publisher.
    #[enum_value(name = "Connecting to the publisher", nick = "connecting")]
    Connecting,
    /// The publisher is there, the broadcast not yet.
    #[enum_value(name = "Connected, waiting for the broadcast", nick = "waiting")]
    Waiting,
    /// Media comes.
    #[enum_value(name = "Connected to the broadcast", nick = "connected")]
    Connected,
    /// The connection was lost or could not be made; it is tried again.
    #[enum_value(name = "Without connection, trying again", nick = "reconnecting")]
    Reconnecting,
    /// The publisher ended the broadcast, or the application sent EOS.
    #[enum_value(name = "The broadcast ended", nick = "ended")]
    Ended,
    /// An error was posted.
    #[enum_value(name = "Failed", nick = "failed")]
    Failed,
    /// Media came and has stopped; the connection may still be there.
    #[enum_value(name = "Connected, and nothing comes any more", nick = "stalled")]
    Stalled,
}

/// How the publisher is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstIrohLiveSrcPathType")]
pub enum PathType {
    /// There is no connection.
    #[default]
    #[enum_value(name = "Not reached", nick = "none")]
    None,
    /// Straight to its address.
    #[enum_value(name = "Directly", nick = "direct")]
    Direct,
    /// Through a relay server.
    #[enum_value(name = "Through a relay, end-to-end encrypted", nick = "relayed")]
    Relayed,
}

impl From<PathKind> for PathType {
    fn from(kind: PathKind) -> Self {
        match kind {
            PathKind::Direct => Self::Direct,
            PathKind::Relayed => Self::Relayed,
            _ => Self::None,
        }
    }
}
