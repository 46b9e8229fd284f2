# One layer of a Debian image: packages installed on top of $LOWER. Runs in a mount namespace of its own, which takes
# the mounts along when this shell ends, however it ends.
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK,redirect_dir=off,metacopy=off,index=off" "$ROOT"
mount -t proc proc "$ROOT/proc"
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8
if [ "$PACKAGES" ]; then
    # Package lists and archives stay out of the layer.
    mount -t tmpfs tmpfs "$ROOT/var/lib/apt/lists"
    mount -t tmpfs tmpfs "$ROOT/var/cache/apt"
    mkdir -p "$ROOT/var/lib/apt/lists/partial" "$ROOT/var/cache/apt/archives/partial"
    # Installing a package must not start its service.
    printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
    chmod 755 "$ROOT/usr/sbin/policy-rc.d"
    # The machine's apt, with its proxy settings, works on the tree.
    apt_get() {
        apt-get -q -o Dir="$ROOT" -o DPkg::Chroot-Directory="$ROOT" -o APT::Sandbox::User=root \
            -o Acquire::Retries=3 -o Acquire::Languages=none "$@"
    }
    apt_get update
    # shellcheck disable=SC2086 # a list
    apt_get install --yes --no-install-recommends $PACKAGES
    rm "$ROOT/usr/sbin/policy-rc.d"
fi
if [ "$SCRIPT" ]; then
    chroot "$ROOT" sh -euc "$SCRIPT"
fi
umount --recursive "$ROOT"
