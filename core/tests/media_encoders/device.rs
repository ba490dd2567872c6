//! An encoder of VP8 whose device can be taken away. There is one, so the tests take turns.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
};

use gst::{glib, prelude::*, subclass::prelude::*};

pub const NAME: &str = "deviceenc";

/// What its frames end with, before the number of the encoder that was opened; decoders do not mind.
const MARK: &[u8] = b"made by the device";

/// Which of the encoders that were opened made a frame, from 1 on; none if it was none of them.
pub fn maker(frame: &[u8]) -> Option<u8> {
    let (number, frame) = frame.split_last()?;
    frame.ends_with(MARK).then_some(*number)
}

/// The bit rates of the encoders that were opened.
pub static OPENED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// So many frames stay inside until others follow them.
const HELD_BACK: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Opens at once.
    Free,
    /// Somebody else has it.
    Busy,
    /// Takes its time, until it is something else.
    Slow,
    /// Opens, and fails at the first picture.
    Broken,
}

/// A broken one was tried.
pub static BROKE: AtomicBool = AtomicBool::new(false);

/// How many are open.
static OPEN: AtomicU8 = AtomicU8::new(0);

pub fn open() -> u8 {
    OPEN.load(Ordering::Relaxed)
}

static DEVICE: (Mutex<Device>, Condvar) = (Mutex::new(Device::Free), Condvar::new());
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub fn set(device: Device) {
    *DEVICE.0.lock().unwrap() = device;
    DEVICE.1.notify_all();
}

pub async fn register(device: Device) -> tokio::sync::MutexGuard<'static, ()> {
    let turn = TURN.lock().await;
    iroh_live::media::init().unwrap();
    set(device);
    OPENED.lock().unwrap().clear();
    BROKE.store(false, Ordering::Relaxed);
    gst::Element::register(None, NAME, gst::Rank::PRIMARY + 1, DeviceEnc::static_type()).unwrap();
    turn
}

glib::wrapper! {
    pub struct DeviceEnc(ObjectSubclass<Imp>) @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

#[derive(Default, glib::Properties)]
#[properties(wrapper_type = DeviceEnc)]
pub struct Imp {
    /// Bits a second. Cannot be changed while it runs.
    #[property(get, set)]
    bitrate: AtomicU32,
    /// Which of the encoders that were opened it is.
    number: AtomicU8,
}

#[glib::object_subclass]
impl ObjectSubclass for Imp {
    const NAME: &'static str = "TestDeviceEnc";
    type Type = DeviceEnc;
    type ParentType = gst::Bin;
}

#[glib::derived_properties]
impl ObjectImpl for Imp {
    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        let encoder = gst::ElementFactory::make("vp8enc")
            .property("deadline", 1i64)
            .build()
            .unwrap();
        element.add(&encoder).unwrap();
        for name in ["sink", "src"] {
            let template = element.pad_template(name).unwrap();
            let pad = gst::GhostPad::builder_from_template(&template)
                .name(name)
                .build();
            pad.set_target(encoder.static_pad(name).as_ref()).unwrap();
            let weak = element.downgrade();
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                if *DEVICE.0.lock().unwrap() != Device::Broken {
                    return gst::PadProbeReturn::Ok;
                }
                BROKE.store(true, Ordering::Relaxed);
                if let Some(element) = weak.upgrade() {
                    gst::element_error!(element, gst::StreamError::Encode, ["broken"]);
                }
                // The bindings have let go of the buffer by then; `Drop` would let go of it once more.
                gst::PadProbeReturn::Handled
            });
            if name == "src" {
                hold_back(&pad, element.downgrade());
            }
            element.add_pad(&pad).unwrap();
        }
    }
}

/// Marks the frames that come out, and is slow in giving them, as devices are that work in parallel.
fn hold_back(pad: &gst::GhostPad, element: glib::WeakRef<DeviceEnc>) {
    let held = Mutex::new(VecDeque::new());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(gst::PadProbeData::Buffer(frame)) = &mut info.data else {
            return gst::PadProbeReturn::Ok;
        };
        let element = element.upgrade().unwrap();
        let number = element.imp().number.load(Ordering::Relaxed);
        frame
            .make_mut()
            .append_memory(gst::Memory::from_slice([MARK, &[number]].concat()));
        let mut held = held.lock().unwrap();
        held.push_back(frame.clone());
        if held.len() <= HELD_BACK {
            return gst::PadProbeReturn::Drop;
        }
        *frame = held.pop_front().unwrap();
        gst::PadProbeReturn::Ok
    });
}

impl GstObjectImpl for Imp {}

impl ElementImpl for Imp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Device",
                "Codec/Encoder/Video/Hardware",
                "Encodes VP8 where the device is free",
                "A test",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<[gst::PadTemplate; 2]> = LazyLock::new(|| {
            let template = |name, direction, caps| {
                let caps = gst::Caps::new_empty_simple(caps);
                let always = gst::PadPresence::Always;
                gst::PadTemplate::new(name, direction, always, &caps).unwrap()
            };
            [
                template("sink", gst::PadDirection::Sink, "video/x-raw"),
                template("src", gst::PadDirection::Src, "video/x-vp8"),
            ]
        });
        &*TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            let device = DEVICE.0.lock().unwrap();
            let device = DEVICE
                .1
                .wait_while(device, |device| *device == Device::Slow)
                .unwrap();
            if *device == Device::Busy {
                gst::element_imp_error!(self, gst::ResourceError::Busy, ["no session left"]);
                return Err(gst::StateChangeError);
            }
            let mut opened = OPENED.lock().unwrap();
            opened.push(self.bitrate.load(Ordering::Relaxed));
            self.number.store(opened.len() as u8, Ordering::Relaxed);
            OPEN.fetch_add(1, Ordering::Relaxed);
        }
        if transition == gst::StateChange::ReadyToNull {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
        self.parent_change_state(transition)
    }
}

impl BinImpl for Imp {}
