#!/bin/sh
# Installs what scripts/emoji/build.fsx needs. Safe to run again.
set -eu
cd "$(dirname "$0")/../.."
target=output/emoji
packages="@iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 @iconify-json/fluent-emoji-flat@1.2.6
@iconify-json/fluent-emoji-high-contrast@1.2.6 emojibase-data@17.0.0"

echo "Programs (Debian packages librsvg2-bin and espeak-ng, through apt-get):"
if command -v rsvg-convert >/dev/null && command -v espeak-ng >/dev/null; then
    echo "  already here"
else
    root=""
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get update
    $root apt-get install -y --no-install-recommends librsvg2-bin espeak-ng
fi
echo "  $(rsvg-convert --version)"
echo "  $(espeak-ng --version)"

echo "Pictures and names (npm packages into $target/node_modules):"
for package in $packages; do echo "  $package"; done
mkdir -p "$target"
[ -f "$target/package.json" ] || echo '{ "private": true }' >"$target/package.json"
# shellcheck disable=SC2086
npm install --prefix "$target" --save-exact --ignore-scripts --no-audit --no-fund $packages
