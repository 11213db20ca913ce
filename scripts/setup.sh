#!/bin/sh
# All set-up on a bare machine: system packages, a virtual environment in .venv, this package in it.
# `make demo` and `make test` call it; when nothing has changed it returns within a second.
#
#   sh scripts/setup.sh [EXTRAS]   these extras of pyproject.toml; without the argument all that work here needs
#   PYTHON=/path/to/python3        use this interpreter instead of looking for one
set -eu
cd "$(dirname "$0")/.."

everything=offline,cpu,timm,look,onnx,sweep,demos,metaworld,docs,dev
extras=${1:-$everything}
venv=.venv
minor=11 # the oldest Python 3 that pyproject.toml admits
linux=false
[ "$(uname -s)" = Linux ] && linux=true

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() {
    printf 'set-up failed: %s\n' "$*" >&2
    exit 1
}

# --- Python -----------------------------------------------------------------------------------------

recent() { "$1" -c "import sys; sys.exit(sys.version_info < (3, $minor))" >/dev/null 2>&1; }

find_python() { # prints the first recent Python 3, or nothing
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if recent "$name"; then
            command -v "$name"
            return
        fi
    done
}

python_packages() { # what apt must bring so that find_python finds one that can make a virtual environment
    python=$(find_python)
    if [ -n "$python" ]; then
        version=$("$python" -c 'import sys; print("python3.%d" % sys.version_info.minor)')
        "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || echo "$version-venv"
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not Python 3.$minor or newer"
    elif ! command -v python3 >/dev/null; then
        echo python3 python3-venv
    else # python3 is too old, as on Ubuntu 22.04, which has 3.11 beside it
        echo python3.11 python3.11-venv
    fi
}

# --- OpenGL: MuJoCo renders through EGL, on the CPU (Mesa) where there is no GPU ----------------------

library() { /sbin/ldconfig -p | grep -q "$1"; }

gl_packages() {
    library libEGL.so.1 || echo libegl1
    library libGL.so.1 || echo libgl1
    library libGLESv2.so.2 || echo libgles2
    for vendor in /usr/share/glvnd/egl_vendor.d/*.json /etc/glvnd/egl_vendor.d/*.json; do
        [ -e "$vendor" ] && return
    done
    echo libegl-mesa0
}

opencv_packages() { # what OpenCV, which Grad-CAM draws with, takes from the system
    case ",$extras," in
    *,look,*) library libgthread-2.0.so.0 || echo libglib2.0-0 ;;
    esac
}

# --- System packages ----------------------------------------------------------------------------------

install_packages() { # the packages as arguments
    by_hand="apt-get update && apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null ||
        fail "this system has no apt-get; install what these Debian packages hold, then run this again: $*"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo # asks for a password only where there is a terminal to type it
    else
        fail "system packages are missing and this is not root; run this as root, then the same command again:
    $by_hand"
    fi
    say "installing system packages: $*"
    {
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "$@"
    } </dev/null || fail "apt-get could not install them; see above, then try: $by_hand"
}

missing=$(python_packages)
$linux && missing="$missing $(gl_packages) $(opencv_packages)"
# shellcheck disable=SC2086  # a list of words
set -- $missing
if [ $# -gt 0 ]; then
    $linux || fail "needs Python 3.$minor or newer with venv; install it, or name it: PYTHON=/path/to/python3 make setup"
    install_packages "$@"
fi

# --- Virtual environment ------------------------------------------------------------------------------

python=$(find_python)
[ -n "$python" ] || fail "found no Python 3.$minor or newer; name one: PYTHON=/path/to/python3 make setup"

# The stamp says what was installed where: a changed pyproject.toml installs again (quickly), a moved or
# broken environment is made anew, and where everything is, a part of it is too.
stamp=$venv/installed
of_project="$(cksum <pyproject.toml) $PWD"
wanted="$of_project $extras"
works() { recent "$venv/bin/python" && "$venv/bin/pip" --version >/dev/null 2>&1; }
installed() {
    recent "$venv/bin/python" && case "$(cat "$stamp" 2>/dev/null)" in
    "$wanted" | "$of_project $everything") true ;;
    *) false ;;
    esac
}

# Python compiles a module when it is first imported: all 25,000 beforehand would take minutes. Where it may not keep what
# it compiled, as in many containers, every process would do that again.
[ -n "${PYTHONDONTWRITEBYTECODE:-}" ] && compile=--compile || compile=--no-compile
pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$compile" "$@"
}

# --- PyTorch: of the CUDA build the venv is 5 GB, which nobody needs who has no NVIDIA GPU ---------------

has_nvidia() { grep -qs 0x10de /sys/bus/pci/devices/*/vendor || [ -e /dev/dxg ] || ls /dev/nvidia[0-9]* >/dev/null 2>&1; }

newest_cpu_build() { # of a package: its newest version that ends in +cpu, or nothing
    "$venv/bin/python" -m pip index versions "$1" 2>/dev/null | sed -n 's/^Available versions: //p' |
        tr -d ' ' | tr ',' '\n' | grep -m 1 '+cpu$' || true
}

install_cpu_build() { # where the index that pip is configured for has it, for both packages
    torch=$(newest_cpu_build torch) torchvision=$(newest_cpu_build torchvision)
    if [ -z "$torch" ] || [ -z "$torchvision" ]; then
        say "pip's index has no CPU build of PyTorch and torchvision, so pip brings the CUDA build (docs/install.md)"
        return
    fi
    say "no NVIDIA GPU: PyTorch $torch, torchvision $torchvision"
    pip_install -q "torch==$torch" "torchvision==$torchvision" || say "these could not be installed; going on without"
}

if ! installed; then
    say "installing into $venv with $("$python" --version); the first time brings PyTorch and takes minutes"
    works || "$python" -m venv --clear "$venv"
    if $linux && ! has_nvidia && ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
        install_cpu_build
    fi
    pip_install -e ".[$extras]" ||
        fail "pip could not install the dependencies; see above, then run the same command again"
    echo "$wanted" >"$stamp"
fi
