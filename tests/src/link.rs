//! A bad link: the only route between two network namespaces, which delays, drops and limits packets as it is told.
//!
//! Each end is a namespace with a TUN device in it, and a thread of this process carries the packets from one device to
//! the other. Neither namespaces nor devices have a name in the system: they are gone when nobody uses them any more,
//! also after a panic.

mod shaper;

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::Ipv4Addr,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use shaper::{Conditions, Counters, Shaper};

/// What a packet may measure, as on most of the internet's links.
const MTU: usize = 1500;

/// How often the thread looks whether it is still wanted, when no packet comes.
const TICK: Duration = Duration::from_millis(50);

/// A link that can be made worse and better while it runs.
pub struct Link {
    ends: [End; 2],
    ways: Arc<Mutex<[Shaper<Vec<u8>>; 2]>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A network namespace at one end of a link. It has one interface besides its loopback, and one address.
pub struct End {
    namespace: Arc<File>,
    address: Ipv4Addr,
}

impl Link {
    /// Makes a link, with the same conditions both ways.
    ///
    /// Says why on standard error, and gives none, where this process may not make namespaces: a test then has to be left
    /// out. Never so in CI, where the environment has `CI` set.
    ///
    /// # Panics
    /// In CI if there can be no link, and everywhere for other reasons than missing rights.
    pub fn new(conditions: Conditions) -> Option<Self> {
        match Self::open(&conditions) {
            Ok(link) => Some(link),
            Err(error) => {
                let reason =
                    format!("no link between namespaces can be made ({error}); run as root");
                let rights = matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
                );
                assert!(rights && env::var_os("CI").is_none(), "{reason}");
                let name = thread::current().name().unwrap_or("a test").to_owned();
                eprintln!("SKIPPED {name}: {reason}");
                None
            }
        }
    }

    fn open(conditions: &Conditions) -> io::Result<Self> {
        let (a, device_a) = End::open(Ipv4Addr::new(10, 77, 0, 1))?;
        let (b, device_b) = End::open(Ipv4Addr::new(10, 77, 0, 2))?;
        let ways = [1, 2].map(|seed| Shaper::new(conditions.clone(), seed));
        let ways = Arc::new(Mutex::new(ways));
        let stop = Arc::new(AtomicBool::new(false));
        let carrier = Carrier {
            devices: [device_a, device_b],
            ways: ways.clone(),
            stop: stop.clone(),
            epoch: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("link".into())
            .spawn(move || carrier.run())?;
        Ok(Self {
            ends: [a, b],
            ways,
            stop,
            thread: Some(thread),
        })
    }

    /// The one end.
    pub fn a(&self) -> &End {
        &self.ends[0]
    }

    /// The other end, to change it.
    pub fn b_mut(&mut self) -> &mut End {
        &mut self.ends[1]
    }

    /// The other end.
    pub fn b(&self) -> &End {
        &self.ends[1]
    }

    /// Changes the link, both ways.
    pub fn set(&self, conditions: &Conditions) {
        for way in &mut *lock(&self.ways) {
            way.set(conditions.clone());
        }
    }

    /// Changes the way from [`a`](Self::a) to [`b`](Self::b) and the way back, each by itself.
    pub fn set_ways(&self, there: Conditions, back: Conditions) {
        let mut ways = lock(&self.ways);
        ways[0].set(there);
        ways[1].set(back);
    }

    /// What has become of the packets from [`a`](Self::a) to [`b`](Self::b) so far, and of those on the way back.
    pub fn counters(&self) -> (Counters, Counters) {
        let ways = lock(&self.ways);
        (ways[0].counters(), ways[1].counters())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl End {
    /// Makes a namespace with a device in it.
    fn open(address: Ipv4Addr) -> io::Result<(Self, File)> {
        // A thread of its own, as a thread that has changed its namespace is of no use for anything else.
        let made = thread::spawn(move || -> io::Result<(Self, File)> {
            // SAFETY: takes no pointers.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let device = open_tun()?;
            configure(address)?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            let end = Self {
                namespace: Arc::new(namespace),
                address,
            };
            Ok((end, device))
        });
        made.join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }

    /// The address of this end on the link.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Gives this end another address instead of the one that it has, as when a machine changes from one network to another.
    ///
    /// # Panics
    /// If there is no such address, or no `ip`.
    pub fn change_address(&mut self, to: Ipv4Addr) {
        let from = std::mem::replace(&mut self.address, to);
        let namespace = self.namespace.clone();
        let changing = thread::spawn(move || -> io::Result<()> {
            enter(namespace.as_raw_fd())?;
            ip(&format!(
                "addr del {from}/24 dev {DEVICE}\naddr add {to}/24 dev {DEVICE}\nroute replace default dev {DEVICE}\n"
            ))
        });
        let changed = changing.join().expect("no panic");
        changed.expect("an end may have any address");
    }

    /// Lets a command run in this namespace.
    pub fn enter(&self, command: &mut Command) {
        let namespace = self.namespace.clone();
        // SAFETY: between fork and exec only one system call is made.
        unsafe {
            command.pre_exec(move || enter(namespace.as_raw_fd()));
        }
    }

    /// A tokio runtime whose threads are in this namespace, and with them every socket that is opened there.
    ///
    /// # Panics
    /// If no threads can be made.
    pub fn runtime(&self) -> tokio::runtime::Runtime {
        let namespace = self.namespace.clone();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                enter(namespace.as_raw_fd()).expect("who made the namespace may enter it");
            })
            .build()
            .expect("there are threads")
    }
}

fn enter(namespace: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointers; a descriptor that is none gives an error.
    check(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })
}

const DEVICE: &str = "link0";

/// A TUN device in the namespace of this thread. It is gone when the file is closed.
fn open_tun() -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: zeros are a valid value of this structure of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // The two flags fit.
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the structure is the one that this request wants, and it lives on.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(device)
}

/// Brings the interfaces of this thread's namespace up.
fn configure(address: Ipv4Addr) -> io::Result<()> {
    ip(&format!(
        "link set lo up\naddr add {address}/24 dev {DEVICE}\nlink set {DEVICE} mtu {MTU} txqueuelen 10000 up\nroute add default dev {DEVICE}\n"
    ))
}

/// Changes the network of this thread's namespace.
fn ip(commands: &str) -> io::Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin.write_all(commands.as_bytes())?;
    }
    let status = ip.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("ip: {status}")));
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Carries packets between two devices.
struct Carrier {
    devices: [File; 2],
    ways: Arc<Mutex<[Shaper<Vec<u8>>; 2]>>,
    stop: Arc<AtomicBool>,
    epoch: Instant,
}

impl Carrier {
    fn run(self) {
        // SAFETY: takes no pointers. Without it a wait is 50 microseconds too long.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let mut packet = [0; MTU];
        while !self.stop.load(Ordering::Relaxed) {
            let next = self.deliver();
            let now = self.epoch.elapsed();
            let wait = next.map_or(TICK, |due| due.saturating_sub(now)).min(TICK);
            self.wait(wait);
            let now = self.epoch.elapsed();
            let mut ways = lock(&self.ways);
            for (way, mut device) in ways.iter_mut().zip(&self.devices) {
                // Fails when there is nothing more to read.
                while let Ok(size @ 1..) = device.read(&mut packet) {
                    way.push(now, size, packet[..size].to_vec());
                }
            }
        }
    }

    /// Gives out what has arrived. Returns when the next packet does.
    fn deliver(&self) -> Option<Duration> {
        let now = self.epoch.elapsed();
        let mut ways = lock(&self.ways);
        let [there, back] = &mut *ways;
        for (way, mut device) in [(there, &self.devices[1]), (back, &self.devices[0])] {
            while let Some(packet) = way.pop(now) {
                // What the other side does not take is lost, as on any link.
                let _ = device.write(&packet);
            }
        }
        ways.iter().filter_map(Shaper::next).min()
    }

    /// Waits for a packet to be read, or for the time to pass.
    fn wait(&self, time: Duration) {
        let mut waited = self.devices.each_ref().map(|device| libc::pollfd {
            fd: device.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        let time = libc::timespec {
            tv_sec: 0,
            // Less than a second, which fits everywhere.
            tv_nsec: time.subsec_nanos() as libc::c_long,
        };
        // SAFETY: the pointers are to what lives on, and two is their number. An interruption ends the wait early.
        unsafe { libc::ppoll(waited.as_mut_ptr(), 2, &raw const time, std::ptr::null()) };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
