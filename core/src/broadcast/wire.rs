//! The container that tracks are written in.

use std::task::Poll;

use bytes::BytesMut;
use moq_lite::{Timestamp, group, kio};
use moq_mux::{
    Error, catalog,
    container::{Container, Frame, Kind},
};

/// The container of a catalog, writing each frame in one step.
///
/// The crate's own way hands a frame over in pieces, the header first. That wakes the task that sends, and when it runs
/// before the next piece is there, the header goes out in a packet of its own and the frame waits for another turn.
/// The bytes are copied once in either case.
pub(super) struct Wire(pub(super) catalog::hang::Container);

impl Container for Wire {
    type Error = Error;

    fn write(&self, group: &mut group::Producer, frames: &[Frame]) -> Result<(), Error> {
        let catalog::hang::Container::Legacy(_) = self.0 else {
            return self.0.write(group, frames);
        };
        for frame in frames {
            // A timestamp takes eight bytes at most.
            let mut whole = BytesMut::with_capacity(8 + frame.payload.len());
            hang::container::Frame {
                timestamp: frame.timestamp,
                payload: frame.payload.clone(),
            }
            .encode(&mut whole)?;
            group.write_frame(frame.timestamp, whole.freeze())?;
        }
        Ok(())
    }

    fn poll_read(
        &self,
        group: &mut group::Consumer,
        waiter: &kio::Waiter,
    ) -> Poll<Result<Option<Vec<Frame>>, Error>> {
        self.0.poll_read(group, waiter)
    }

    fn end(&self, frame: &Frame) -> Option<Timestamp> {
        self.0.end(frame)
    }

    fn kind(&self) -> Kind {
        self.0.kind()
    }

    fn finish_group(
        &self,
        group: &mut group::Producer,
        end: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.0.finish_group(group, end)
    }
}
