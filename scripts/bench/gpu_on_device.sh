#!/usr/bin/env bash
# Prepares a bare machine with a GPU, an image with torch 2.11.0 and no network, then runs a command in this tree.
#
#   scripts/bench/gpu_on_device.sh BUNDLE [--build TARGET…] -- COMMAND…
#
# BUNDLE holds debs/ (apt-get download of what scripts/setup installs, with the libraries that those need), wheels/
# (pip download of what the image's Python lacks) and, unless --build names what to compile here, built/, which takes
# the place of build/release.  Needs to be root.  A second call on the same machine only builds and runs.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
bundle=$(readlink -f "$1")
shift
targets=()
if [ "${1:-}" = --build ]; then
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    targets+=("$1")
    shift
  done
fi
[ "${1:-}" = -- ] || { echo "usage: gpu_on_device.sh BUNDLE [--build TARGET…] -- COMMAND…" >&2; exit 2; }
shift

readonly system=/tmp/sys site=/tmp/site
python=$(command -v python3)
torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))')

# What Debian's packages hold, beside the image's own system, which is another release.
prepare() {
  mkdir -p "$system" "$site"
  local package wheel
  for package in "$bundle"/debs/*.deb; do dpkg -x "$package" "$system"; done
  find "$system" -name '*.pc' -exec sed -i '/^\(Requires\|Libs\)\.private/d' {} +
  for wheel in "$bundle"/wheels/*.whl; do
    "$python" -m zipfile -e "$wheel" "$site"
  done
  printf '%s\n' "$system/usr/lib/x86_64-linux-gnu" "$system/lib/x86_64-linux-gnu" >/etc/ld.so.conf.d/zz-bulkhead.conf
  printf '%s\n' "$torch/lib" "$torch"/../nvidia/*/lib >>/etc/ld.so.conf.d/zz-bulkhead.conf
  ldconfig
  mkdir -p "$root/.deps/python/bin"
  rm -rf "$root/.deps/torch"
  ln -s "$torch" "$root/.deps/torch"
  printf '#!/bin/sh\nunset LD_LIBRARY_PATH\nPYTHONPATH=%s:$PYTHONPATH exec %s "$@"\n' "$site" "$python" \
    >"$root/.deps/python/bin/python"
  chmod +x "$root/.deps/python/bin/python"
}

# The headers and libraries above are not where compilers look.
build() {
  (
    local lib=$system/usr/lib/x86_64-linux-gnu
    export CMAKE_PREFIX_PATH=$system/usr PKG_CONFIG_SYSROOT_DIR=$system
    export PKG_CONFIG_LIBDIR=$lib/pkgconfig:$system/usr/share/pkgconfig
    export CPLUS_INCLUDE_PATH=$system/usr/include:$system/usr/include/x86_64-linux-gnu
    export C_INCLUDE_PATH=$CPLUS_INCLUDE_PATH LIBRARY_PATH=$lib LD_LIBRARY_PATH=$lib
    cd "$root"
    cmake --preset release -DBULKHEAD_CUDA=ON -DBULKHEAD_PYTHON="$root/.deps/python/bin/python" >/tmp/configure.log ||
      { cat /tmp/configure.log; exit 1; }
    ninja -k 0 -C build/release "${targets[@]}" >/tmp/build.log ||
      { grep -B 2 -A 12 -E 'error|undefined' /tmp/build.log | tail -n 150; exit 1; }
  )
}

[ -e /etc/ld.so.conf.d/zz-bulkhead.conf ] || prepare
if [ ${#targets[@]} -gt 0 ]; then
  build
else
  mkdir -p "$root/build"
  rm -rf "$root/build/release"
  cp -r "$bundle/built" "$root/build/release"
fi
export NCCL_NVLS_ENABLE=0 PYTHONPATH=$site BULKHEAD_BENCH_BUILT=1 BULKHEAD_BENCH_PYTHON=$python
cd "$root"
"$@"
