#!/bin/sh
# Installs the Debian packages that are missing out of those named. No service is started, and what is there stays as
# it is.
set -eu

missing=
for package; do
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing, and installing them needs root:$missing" >&2
    exit 1
fi

# A package of another origin may already provide the programs of one: containerd.io has containerd and runc, and
# must not be replaced.
needed=
for package in $missing; do
    case $package in
        containerd | runc) command -v "$package" >/dev/null || needed="$needed $package" ;;
        *) needed="$needed $package" ;;
    esac
done
[ "$needed" ] || exit 0
echo "installing$needed" >&2

# Packages ask policy-rc.d before they start a service.
policy=/usr/sbin/policy-rc.d
restore() {
    rm -f "$policy"
    if [ -e "$policy.shoal" ]; then mv "$policy.shoal" "$policy"; fi
}
trap restore EXIT
trap 'exit 130' INT TERM HUP
if [ -e "$policy" ] && ! [ -e "$policy.shoal" ]; then mv "$policy" "$policy.shoal"; fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update >&2
# shellcheck disable=SC2086 # a list
apt-get -q -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $needed >&2
