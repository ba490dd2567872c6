#!/bin/sh
# Makes this machine ready for one of the Makefile's jobs: scripts/setup.sh build|run|test|ci
#
# It looks first, which takes well under a second when nothing is missing. If something is, it says what and why, and
# only then installs: packages with apt on Debian, Ubuntu and their kin, Rust with rustup. On every other system it
# says which packages to install, and stops. POSIX sh, because a bare system has nothing else.
set -eu
cd "$(dirname "$0")/.."
job=${1:-build}
# rustup may have been installed a minute ago, by this script, for a shell that has not read its profile since.
PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

min_gst=1.22 # the oldest GStreamer whose API the plugin is built against

# The one list of packages. `for`: all jobs, test (and ci), ci, or screen (run, when there is one to show things on).
# `look for` decides: a package that is installed but whose element does not load is missing all the same.
# In the last columns `-` says that the system brings it along.
packages="
for    look for               Debian and Ubuntu               Fedora (with RPM Fusion)       Arch               Homebrew   why
all    cmd:cc                |gcc libc6-dev                  |gcc                           |gcc               |-         |to compile C in dependencies, and to link
all    cmd:pkg-config        |pkg-config                     |pkgconf-pkg-config            |pkgconf           |pkgconf   |to find GStreamer
all    file:certificates     |ca-certificates                |-                             |-                 |-         |to download over HTTPS
all    lib:gstreamer-1.0     |libgstreamer1.0-dev            |gstreamer1-devel              |gstreamer         |gstreamer |to build against GStreamer, $min_gst or newer
all    lib:gstreamer-app-1.0 |libgstreamer-plugins-base1.0-dev|gstreamer1-plugins-base-devel|gst-plugins-base  |gstreamer |the same, its libraries for audio and video
all    cmd:gst-inspect-1.0   |gstreamer1.0-tools             |gstreamer1                    |gstreamer         |gstreamer |gst-launch-1.0, gst-inspect-1.0
all    cmd:gst-play-1.0      |gstreamer1.0-plugins-base-apps |gstreamer1-plugins-base-tools |gst-plugins-base  |gstreamer |gst-play-1.0, gst-discoverer-1.0
all    el:opusenc            |gstreamer1.0-plugins-base      |gstreamer1-plugins-base       |gst-plugins-base  |gstreamer |test sources, converters, Opus
all    el:vp8enc             |gstreamer1.0-plugins-good      |gstreamer1-plugins-good       |gst-plugins-good  |gstreamer |VP8 and VP9, cameras, reading files
all    el:h264parse          |gstreamer1.0-plugins-bad       |gstreamer1-plugins-bad-free   |gst-plugins-bad   |gstreamer |the parsers of H.264, H.265 and AV1
all    el:x264enc            |gstreamer1.0-plugins-ugly      |gstreamer1-plugins-ugly       |gst-plugins-ugly  |gstreamer |encoding H.264
all    el:avdec_h264         |gstreamer1.0-libav             |gstreamer1-plugin-libav       |gst-libav         |gstreamer |decoding H.264, H.265 and AAC
all    el:timeoverlay        |gstreamer1.0-x                 |gstreamer1-plugins-base       |gst-plugins-base  |gstreamer |the clock on the test card, a window to watch in
screen el:pulsesink          |gstreamer1.0-pulseaudio        |gstreamer1-plugins-good       |gst-plugins-good  |-         |sound
screen el:alsasink           |gstreamer1.0-alsa              |gstreamer1-plugins-base       |gst-plugins-base  |-         |sound, where no sound server runs
test   cmd:ip                |iproute2                       |iproute                       |iproute2          |-         |tests on bad networks, in namespaces
ci     py:GstApp             |python3-gi gir1.2-gst-plugins-base-1.0|python3-gobject        |python-gobject    |pygobject3|the examples in Python
ci     cmd:c++               |g++                            |gcc-c++                       |gcc               |-         |to compile the fuzzer
ci     cmd:shellcheck        |shellcheck                     |ShellCheck                    |shellcheck        |shellcheck|to check these scripts
"

say() { printf '%s\n' "$@" >&2; }
stop() { say "" "$@"; exit 1; }

if [ -f /etc/debian_version ] && command -v apt-get >/dev/null; then system=debian
elif command -v dnf >/dev/null; then system=fedora
elif command -v pacman >/dev/null; then system=arch
elif command -v brew >/dev/null || [ "$(uname)" = Darwin ]; then system=brew
else system=other; fi

wanted() {
    case $1 in
    all) ;;
    test) [ "$job" = test ] || [ "$job" = ci ] ;;
    ci) [ "$job" = ci ] ;;
    screen) [ "$job" = run ] && [ -n "${DISPLAY-}${WAYLAND_DISPLAY-}" ] ;;
    *) false ;;
    esac
}

here() {
    case $1 in
    cmd:*) command -v "${1#cmd:}" ;;
    lib:*) pkg-config --atleast-version=$min_gst "${1#lib:}" ;;
    # Without a version, --exists wants that of gst-inspect-1.0 itself, and plugins may lag behind it.
    el:*) gst-inspect-1.0 --exists --atleast-version=0.0 "${1#el:}" ;;
    # The system's Python, whatever other one is first in PATH: the packages are for that one.
    py:*) "$( [ -x /usr/bin/python3 ] && echo /usr/bin/)python3" -c "import gi; gi.require_version('${1#py:}', '1.0')" ;;
    file:certificates) [ $system != debian ] || [ -e /etc/ssl/certs/ca-certificates.crt ] ;;
    esac >/dev/null 2>&1
}

# Fills $missing (package names for this system) and $why (one line a row).
look() {
    missing='' why=''
    while IFS='|' read -r row debian fedora arch brew reason; do
        # shellcheck disable=SC2086 # the columns are split at their spaces
        set -- $row
        if [ $# -lt 2 ] || ! wanted "$1" || here "$2"; then continue; fi
        case $system in
        fedora) names=$fedora ;;
        arch) names=$arch ;;
        brew) names=$brew ;;
        *) names=$debian ;;
        esac
        # shellcheck disable=SC2086
        set -- $names
        [ "$1" != - ] || continue
        why="$why
  $*: $reason"
        for name; do
            case " $missing " in *" $name "*) ;; *) missing="$missing $name" ;; esac
        done
    done <<TABLE
$packages
TABLE
}

# What is wrong when it is still missing after everything has been installed.
complain() {
    old=$(pkg-config --modversion gstreamer-1.0 2>/dev/null || true)
    if [ -n "$old" ] && ! pkg-config --atleast-version=$min_gst gstreamer-1.0; then
        stop "This system has GStreamer $old; $min_gst or newer is needed (Debian 12 and Ubuntu 24.04 have it)."
    fi
    stop "Still missing:$why" "Look at what 'gst-inspect-1.0 -b' and 'apt-get install$missing' say."
}

look
if [ -n "$missing" ]; then
    say "Missing on this machine, and needed:$why"
    case $system in
    debian)
        sudo=''
        if [ "$(id -u)" != 0 ]; then
            sudo=sudo
            command -v sudo >/dev/null || stop "Without sudo only root can install them:" "  apt-get install$missing"
        fi
        say "" "Installing with: ${sudo:+$sudo }apt-get install$missing" ""
        # Another apt (automatic updates) may be at work on a fresh system: wait for it rather than fail.
        apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -qq"
        # A third party's broken source is no reason to stop: what is missing comes from the distribution.
        $apt update >&2 || say "apt-get update failed; trying with the package lists that are there."
        # shellcheck disable=SC2086
        $apt install -y --no-install-recommends $missing >&2 </dev/null || stop "apt-get could not install:$missing"
        look
        [ -z "$missing" ] || complain
        ;;
    fedora) stop "Please install them, then try again (x264 and libav come from RPM Fusion):" "  sudo dnf install$missing" ;;
    arch) stop "Please install them, then try again:" "  sudo pacman -S --needed$missing" ;;
    brew) stop "Please install them, then try again (a C compiler comes with: xcode-select --install):" "  brew install$missing" ;;
    *) stop "These are Debian's names. Please install the like from your system, then try again." ;;
    esac
fi

min_rust=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' Cargo.toml | head -n 1)
rust_is_here() {
    cargo --version >/dev/null 2>&1 || return 1
    rust=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$min_rust" "$rust" | sort -V | tail -n 1)" = "$rust" ]
}

rust=''
if ! rust_is_here; then
    found="Rust $min_rust or newer is needed to build this; here is ${rust:-none}."
    if command -v rustup >/dev/null; then
        say "$found" "Bringing rustup's stable toolchain up to date:"
        rustup toolchain install stable --profile minimal >&2
        if ! rust_is_here; then
            say "Your default toolchain stays as it is; stable is chosen for this folder only (rustup override set stable)."
            rustup override set stable >&2
        fi
    else
        say "$found" "Installing it for this user with rustup, into ${CARGO_HOME:-$HOME/.cargo} and ${RUSTUP_HOME:-$HOME/.rustup}:"
        rustup_init=$(mktemp)
        trap 'rm -f "$rustup_init"' EXIT
        # To a file first: half a script, from a connection that broke, must not be run.
        curl --proto '=https' --tlsv1.2 -fsS --retry 3 -o "$rustup_init" https://sh.rustup.rs ||
            stop "rustup could not be downloaded. Install Rust $min_rust or newer in any other way, then try again."
        sh "$rustup_init" -y --profile minimal --default-toolchain stable >&2 </dev/null
    fi
    hash -r
    rust_is_here || stop "Rust is still ${rust:-missing}; $min_rust or newer is needed. Is RUSTUP_TOOLCHAIN set, or another rustc first in PATH?"
fi

if [ "$job" = ci ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    say "Adding rustfmt and clippy to Rust, to check the code:"
    rustup component add rustfmt clippy >&2
fi
