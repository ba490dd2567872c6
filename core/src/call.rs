//! A call: two peers that publish to each other, and to nobody else.
//!
//! On the wire, within a MoQ session:
//!
//! * Each side announces a broadcast named `call`. The caller's says that it calls, the other one's that the call is
//!   taken. The call lasts as long as both do.
//! * Who hangs up closes the session with code 0 and "call ended", unless it carries something else. Then it takes its
//!   `call` back, and so does the other one; and where nothing needs the session after all, the one who dialled it closes
//!   it in the same way.
//! * Who declines closes the session with [`CloseCode::BUSY`] or [`CloseCode::REFUSED`]. Where it carries something else,
//!   it announces `call-busy/` or `call-refused/` and 16 hexadecimal digits, different each time, until the caller has
//!   taken its `call` back. What was announced before a call began says nothing about it.
//!
//! [`CloseCode::BUSY`]: crate::CloseCode::BUSY
//! [`CloseCode::REFUSED`]: crate::CloseCode::REFUSED

mod decline;
mod error;
mod handle;
mod incoming;
mod line;

pub use decline::Decline;
pub use error::CallError;
pub use handle::Call;
pub use incoming::{IncomingCall, IncomingCalls};
pub use line::CALL_BROADCAST_NAME;
