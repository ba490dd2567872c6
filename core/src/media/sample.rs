//! What a sample of GStreamer carries, in the terms of a broadcast.

/// A clock's time as signed nanoseconds, as [`LocalBroadcast::timestamp`](crate::LocalBroadcast::timestamp) wants it.
pub fn nanoseconds(time: gst::ClockTime) -> i64 {
    i64::try_from(time.nseconds()).unwrap_or(i64::MAX)
}

/// When a sample is presented: its running time, nanoseconds, negative before the segment begins.
///
/// None for a sample without a timestamp, or whose segment does not count time.
pub fn running_time(sample: &gst::SampleRef) -> Option<i64> {
    let buffer = sample.buffer()?;
    let time = buffer.pts().or(buffer.dts())?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    Some(match segment.to_running_time_full(time)? {
        gst::Signed::Positive(time) => nanoseconds(time),
        gst::Signed::Negative(time) => -nanoseconds(time),
    })
}

/// A buffer's memory as the bytes that are sent; not copied where the memory can be kept. None if it cannot be read.
pub fn payload(buffer: gst::Buffer) -> Option<bytes::Bytes> {
    // A buffer of a pool has to go back to it soon, or a hardware encoder runs out of them.
    // SAFETY: the field is only compared with null.
    let pooled = unsafe { !(*buffer.as_ptr()).pool.is_null() };
    let map = buffer.into_mapped_buffer_readable().ok()?;
    Some(if pooled {
        bytes::Bytes::copy_from_slice(&map)
    } else {
        bytes::Bytes::from_owner(map)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_time_is_that_of_the_segment() {
        gst::init().unwrap();
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(1000));
        let at = |pts: Option<u64>, dts: Option<u64>| {
            let mut buffer = gst::Buffer::new();
            let timed = buffer.get_mut().unwrap();
            timed.set_pts(pts.map(gst::ClockTime::from_seconds));
            timed.set_dts(dts.map(gst::ClockTime::from_seconds));
            let sample = gst::Sample::builder()
                .buffer(&buffer)
                .segment(&segment)
                .build();
            running_time(&sample)
        };
        assert_eq!(at(Some(1002), Some(1001)), Some(2_000_000_000));
        assert_eq!(at(Some(999), None), Some(-1_000_000_000));
        assert_eq!(at(None, Some(1001)), Some(1_000_000_000));
        assert_eq!(at(None, None), None);
        assert_eq!(running_time(&gst::Sample::builder().build()), None);
    }

    #[test]
    fn memory_is_kept_and_that_of_a_pool_is_copied() {
        gst::init().unwrap();
        let own = vec![1u8, 2, 3];
        let address = own.as_ptr();
        let kept = payload(gst::Buffer::from_slice(own)).unwrap();
        assert_eq!((kept.as_ptr(), &kept[..]), (address, &[1, 2, 3][..]));

        use gst::prelude::*;
        let pool = gst::BufferPool::new();
        let mut config = pool.config();
        config.set_params(None, 3, 1, 1);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        let bytes = payload(pool.acquire_buffer(None).unwrap()).unwrap();
        assert_eq!(bytes.len(), 3);
        let wait = gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT);
        assert!(
            pool.acquire_buffer(Some(&wait)).is_ok(),
            "the pool has its only buffer back"
        );
        pool.set_active(false).unwrap();
    }
}
