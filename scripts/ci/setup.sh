#!/usr/bin/env bash
# Installs what only CI needs to run every backend and to look at reports: OpenBLAS, the software Vulkan driver, Chromium, and
# tfjs-node built against the tensorflow-cpu wheel of PyPI. Each part is optional: what cannot be had is said, and the tests run without it.
# Prints `export NAME=value` lines for the caller to eval on stdout, everything else on stderr.
set -uo pipefail
cache="${PITH_CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pith-ci}"
mkdir -p "$cache"
required=wasm
say() { echo "setup: $*" >&2; }

apt_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return 1
  dpkg -s "$@" > /dev/null 2>&1 && return 0
  (apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }) >&2 2>&1
}

if [ "${PITH_BLAS:-}" != none ]; then
  apt_install libopenblas0-pthread || say 'no right to install OpenBLAS'
  if ldconfig -p 2> /dev/null | grep -q 'libopenblas.so.0'; then required=$required,wasm+blas; else say 'no OpenBLAS: plain wasm is tested alone'; fi
fi

apt_install libvulkan1 chromium-common || say 'no right to install the Vulkan software driver'
icd=$(find /usr/lib/chromium /usr/lib/chromium-browser -name vk_swiftshader_icd.json 2> /dev/null | head -n 1)
if [ -n "$icd" ]; then
  echo "export VK_ICD_FILENAMES=$icd"
  required=$required,webgpu
else
  say 'no SwiftShader: webgpu is not tested'
fi

apt_install chromium || say 'no right to install Chromium'
if chromium=$(command -v chromium || command -v chromium-browser); then
  echo "export PUPPETEER_EXECUTABLE_PATH=$chromium"
  echo 'export PITH_REQUIRE_TOOLS=chromium'
else
  say 'no Chromium: reports are not looked at'
fi

# @tensorflow/tfjs-node 4.22 against libtensorflow of the 2.15.1 wheel
build_tfjs_node() {
  local at="$cache/tfjs-node-4.22.0" package deps
  package="$at/node_modules/@tensorflow/tfjs-node"
  if [ ! -e "$at/.built" ]; then
    rm -rf "$at" && mkdir -p "$at" && cd "$at" || return 1
    echo '{"private":true}' > package.json
    npm install --ignore-scripts --no-audit --no-fund @tensorflow/tfjs-node@4.22.0 >&2 || return 1
    python3 -m pip download --quiet --no-deps --only-binary :all: --python-version 3.11 --platform manylinux2014_x86_64 --dest wheel tensorflow-cpu==2.15.1 >&2 || return 1
    python3 -m zipfile -e wheel/tensorflow_cpu-*.whl unzipped || return 1
    deps="$package/deps"
    mkdir -p "$deps/lib" && ln -s "$at/unzipped/tensorflow/include" "$deps/include" || return 1
    for v in '' .2; do
      ln -s "$at/unzipped/tensorflow/libtensorflow_cc.so.2" "$deps/lib/libtensorflow.so$v"
      ln -s "$at/unzipped/tensorflow/libtensorflow_framework.so.2" "$deps/lib/libtensorflow_framework.so$v"
    done
    ln -s libtensorflow.so.2 "$deps/lib/libtensorflow_cc.so.2"
    (cd "$package" && npx --no-install node-pre-gyp rebuild --build-from-source --nodedir=/usr) >&2 || return 1
    touch "$at/.built"
  fi
  echo "export PITH_TFJS_NODE=$package"
  echo "export LD_LIBRARY_PATH=$package/deps/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}
if [ "${PITH_SKIP_TFJS_NODE:-}" = 1 ]; then
  say 'tfjs-node was not asked for'
elif (build_tfjs_node) > "$cache/tfjs-node.env" 2> "$cache/tfjs-node.log"; then
  cat "$cache/tfjs-node.env"
  required=$required,tfjs-node
else
  say "tfjs-node could not be built: $(tail -n 1 "$cache/tfjs-node.log")"
fi
echo "export PITH_REQUIRE_BACKENDS=$required"
