//! Puts the commit and its date into the plugin's description, and its relocations into little space.

fn main() {
    gst_plugin_version_helper::info();
    pack_relocations();
}

/// A plugin of this size has 70 000 addresses that the loader puts right; as a list they take 1.6 MB of every process,
/// packed 20 kB. Only where the C library can unpack them, which is known when it is built for this machine; and only in
/// what is handed out, as some of the fast linkers that people develop with pack them in a way that glibc does not load.
fn pack_relocations() {
    let var = |name| std::env::var(name).unwrap_or_default();
    let native = var("HOST") == var("TARGET");
    let release = var("PROFILE") == "release";
    if release && native && var("CARGO_CFG_TARGET_ARCH") == "x86_64" && unpacks_relocations() {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,pack-relative-relocs");
    }
}

/// Since glibc 2.36, which is that of Debian 12.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn unpacks_relocations() -> bool {
    unsafe extern "C" {
        safe fn gnu_get_libc_version() -> *const std::ffi::c_char;
    }
    // SAFETY: the C library returns a string of its own that ends with a zero.
    let version = unsafe { std::ffi::CStr::from_ptr(gnu_get_libc_version()) };
    let mut parts = version.to_str().unwrap_or_default().split('.');
    let mut part = || parts.next().and_then(|part| part.parse::<u32>().ok());
    (part().unwrap_or(0), part().unwrap_or(0)) >= (2, 36)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn unpacks_relocations() -> bool {
    false
}
